"""The command ``regionvlp``: a group of lazily imported sub-commands, and what happens to errors.

``regionvlp --help`` must answer at once, so the table below holds each command's one-line help; the module behind a
command is imported only when that command runs.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO

import click

from regionvlp import __version__
from regionvlp.errors import RegionVLPError, nearest

# name -> (module, one-line help); the module holds a click command named ``command``.
COMMANDS: dict[str, tuple[str, str]] = {
    "ablate": ("regionvlp.pipelines.ablate.command", "Train variants of a run with several seeds, and compare them."),
    "bench": ("regionvlp.pipelines.bench.command", "Measure parts of regionvlp against a named baseline."),
    "data": ("regionvlp.pipelines.data", "List duplicates, and captions that do not fit their videos."),
    "demo": ("regionvlp.pipelines.toy.demo", "Render, extract, train, measure and draw a small world."),
    "doctor": ("regionvlp.pipelines.doctor", "Say what this machine can do, and how to mend what is missing."),
    "eval": ("regionvlp.pipelines.evaluate", "Measure retrieval with a trained checkpoint."),
    "extract": ("regionvlp.pipelines.extract", "Turn a folder of videos into region shards."),
    "finetune": ("regionvlp.pipelines.finetune", "Train on from the weights of a checkpoint."),
    "index": ("regionvlp.pipelines.index", "Make videos or shards searchable."),
    "mcp": ("regionvlp.pipelines.mcp", "Let agents search an index."),
    "pretrain": ("regionvlp.pipelines.pretrain", "Train a video-language model on region shards and captions."),
    "profile": (
        "regionvlp.pipelines.profile.command",
        "Count the parameters and FLOPs of a configuration, detector included.",
    ),
    "report": ("regionvlp.pipelines.report", "Draw a run, shards or evaluations as one page."),
    "push": ("regionvlp.pipelines.push", "Share a trained model on the Hugging Face hub."),
    "search": ("regionvlp.pipelines.search", "Find the moments that a sentence describes."),
    "serve": ("regionvlp.pipelines.serve", "Ask an index on a page, or by JSON."),
    "shards": ("regionvlp.pipelines.shards", "Inspect, verify and draw region shards."),
    "toyworld": ("regionvlp.pipelines.toy.render", "Render captioned clips of moving shapes."),
    "train-toy-detector": ("regionvlp.pipelines.toy.train_detector", "Train the tiny detector that comes along."),
    "status": ("regionvlp.pipelines.status", "Show how far an extraction is."),
    "weights": ("regionvlp.pipelines.weights", "List, fetch, convert and describe weights."),
}


class LazyGroup(click.Group):
    """A click group that imports a sub-command's module when the command is asked for, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = nearest(args[0], COMMANDS) or f"commands: {', '.join(sorted(COMMANDS))}"
            raise RegionVLPError(f"no command '{args[0]}'", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="regionvlp")
def cli() -> None:
    """Region features from video, and what can be learnt and found with them.

    Start with 'regionvlp doctor', then 'regionvlp extract --videos DIR --out SHARDS'.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: runs the command line and exits with the project's exit codes.

    0 done, 1 a check found faults, 2 the user's mistake, 3 nothing could be done, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # batch systems end a job that way: leave as cleanly as on Ctrl-C
    sys.exit(run(args))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code. Users' mistakes are one line on standard error."""
    # What the library has to say (a damaged checkpoint passed over, a changed video) reaches the user as plain lines.
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, handlers=[_StandardError()])
    try:
        result: Any = cli.main(args=None if args is None else list(args), prog_name="regionvlp", standalone_mode=False)
    except RegionVLPError as error:
        return _complain(error.message, error.hint, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "regionvlp"
        return _complain(error.format_message().rstrip("."), f"see '{path} --help'", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), "", 2)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", "run the same command again to go on", 130)
    except (BrokenPipeError, SystemExit):
        # The reader of our output is gone ('| head'), which click turns into an exit; keep the interpreter from
        # complaining at its own exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}", "check the path, its permissions and the free space", 2)
    return result if isinstance(result, int) else 0


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment: above a progress bar, while there is one. News need no level."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.levelno == logging.INFO else super().format(record)


def _complain(message: str, hint: str, code: int) -> int:
    line = " ".join(message.split())
    if not line:
        return code  # of a process whose run has said already what is wrong
    if hint:
        line = line.removesuffix(".") + ("" if line.endswith("?") else ".") + f" Hint: {hint}"
    click.echo(f"error: {line}", err=True)
    return code
