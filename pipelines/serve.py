"""``regionvlp serve``: an index as a page and a JSON interface."""

from __future__ import annotations

from pathlib import Path

import click

from regionvlp.pipelines.output import console_for, many


@click.command("serve")
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--token", metavar="TEXT", help="What clients have to know.  [none here; beyond this machine a random one]"
)
@click.option("--watch", is_flag=True, help="Take up new and changed files of the folder that the index was made of.")
@click.option("--follow-links", is_flag=True, help="Serve files whose links lead out of that folder.")
@click.option(
    "--rate", default=20.0, show_default=True, type=click.FloatRange(0), help="Requests a second for another machine."
)
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Where an encoder of the index is now.")
@click.option("--device", default="cpu", show_default=True, help="Where checkpoints run.")
def command(
    index: Path,
    port: int,
    host: str,
    token: str | None,
    watch: bool,
    follow_links: bool,
    rate: float,
    encoders: tuple[str, ...],
    device: str,
) -> None:
    """Serve INDEX: a page to ask it on, the same as JSON (/api/search?q=...), /healthz and /metrics.

    Only this machine can connect, unless --host says otherwise; then clients need the token of the address that is
    printed. Ctrl-C ends it.
    """
    from regionvlp.search.server.desk import Desk
    from regionvlp.search.server.run import listening_socket, serve
    from regionvlp.search.server.settings import ServerSettings, checked_token

    console = console_for(None)
    settings = ServerSettings(
        host=host, port=port, token=checked_token(host, token), follow_links=follow_links, rate=rate
    )
    desk = Desk(index.absolute(), encoders, device, most_waiting=settings.most_waiting)
    update = None
    if watch:
        from regionvlp.pipelines.watching import Watcher

        update = Watcher(index.absolute(), desk.opened.index.manifest, device).look
    with listening_socket(settings) as opened:
        settings = ServerSettings(**{**vars(settings), "port": opened.getsockname()[1]})
        desk.warm()
        console.print(f"{many(len(desk.opened.index), 'clip')} at {settings.address}", markup=False)
        if not settings.local:
            console.print("other machines can connect, in plain HTTP: what they ask and see can be read on the way")
        serve(desk, settings, opened, update)
