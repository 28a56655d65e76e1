"""``regionvlp mcp``: an index for agents, over standard input and output."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("mcp")
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Where an encoder of the index is now.")
@click.option("--device", default="cpu", show_default=True, help="Where checkpoints run.")
def command(index: Path, encoders: tuple[str, ...], device: str) -> None:
    """Let agents search INDEX, by the Model Context Protocol over standard input and output.

    Their program starts this command; it has one tool, search_videos. Needs the extra 'mcp'.
    """
    from regionvlp.search.server.agents import create_agent_server
    from regionvlp.search.server.desk import Desk

    desk = Desk(index.absolute(), encoders, device)
    server = create_agent_server(desk)
    desk.warm()
    server.run("stdio")
