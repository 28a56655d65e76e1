"""``regionvlp bench``: measurements against a named baseline in the same run."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import click

from regionvlp.errors import RegionVLPError, nearest

# name -> (module, one-line help); the module holds a click command named ``command``.
BENCHES: dict[str, tuple[str, str]] = {
    "encoders": ("regionvlp.pipelines.bench.encoders", "Encoders on your own videos: recall, pointing, costs."),
    "extract": ("regionvlp.pipelines.bench.extract", "The detector, against the same network image by image."),
    "shards": ("regionvlp.pipelines.bench.shards", "Writing and reading shards, against one npz per frame."),
    "crash": ("regionvlp.pipelines.bench.crash", "Extractions killed at random moments and resumed."),
    "loader": ("regionvlp.pipelines.bench.loader", "Batches out of a loader, against one npz per frame, item by item."),
    "memory": ("regionvlp.pipelines.bench.memory", "An extraction's memory over thousands of clips."),
    "latency": (
        "regionvlp.pipelines.bench.latency",
        "A query at 1,000 and 12,000 items, as in DemoVLP's Table 2.",
    ),
    "rwa": ("regionvlp.pipelines.bench.rwa", "Region-word alignment, against the public form written out."),
    "serve": ("regionvlp.pipelines.bench.serve", "Many clients at one server, against a process for each question."),
    "search": ("regionvlp.pipelines.bench.search", "Exact search over a million clips, against float32."),
}


class _Benches(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in BENCHES:
            return None
        found: click.Command = importlib.import_module(BENCHES[cmd_name][0]).command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in BENCHES:
            raise RegionVLPError(f"no bench '{args[0]}'", nearest(args[0], BENCHES) or f"there are: {_names(BENCHES)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Benches"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(BENCHES.items())])


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


@click.command("bench", cls=_Benches)
def command() -> None:
    """Measure a part of regionvlp on this machine; a ratio above 1 means that ours is better."""
