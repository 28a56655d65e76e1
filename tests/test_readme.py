"""Every command in every README: its sub-commands and options exist, and what needs no network is run.

The toy detector stands in for the full one, a few clips for a data set, two steps for a training.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import itertools
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from pydantic import BaseModel

from regionvlp.extract import plugin
from regionvlp.pipelines.cli import cli, run
from regionvlp.pipelines.reference import documents
from regionvlp.pipelines.toy.world import write_clips
from regionvlp.shards.interop import boxes

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "extract", "regionvlp", "configs", "pipelines", "docker", ".github")
MANUALS = sorted(file for folder in FOLDERS for file in (ROOT / folder).glob("*.md"))
PROGRAMS = {"regionvlp", "make", "pip", "python", "python3", "torchrun", "docker", "bash"}
# Options of programs that are not ours.
FOREIGN = {"--rm", "--gpus", "--shm-size", "--user", "--build-arg", "--parity-table"}


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


@dataclass(frozen=True)
class Command:
    """A line of a code block, or a piece of code within a sentence."""

    manual: str
    words: tuple[str, ...]
    block: bool

    def __str__(self) -> str:
        return f"{self.manual}: {shlex.join(self.words)}"


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and the text of each fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def commands(file: Path) -> list[Command]:
    text = file.read_text(encoding="utf-8")
    found = []
    for language, body in blocks(text):
        if language:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | ; ", line):
                if part.split(maxsplit=1)[:1] and part.split(maxsplit=1)[0] in PROGRAMS:
                    found.append(Command(relative(file), tuple(shlex.split(part, comments=True)), block=True))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for piece in re.findall(r"`([^`]+)`", prose):
        if re.match(r"regionvlp [a-z]", piece):
            found.append(Command(relative(file), tuple(shlex.split(piece)), block=False))
    return found


COMMANDS = [command for file in MANUALS for command in commands(file)]


def parse(words: list[str]) -> None:
    """Has click read the words as it would before a command runs: options, values, and what must be given."""
    command: click.Command = cli
    context = cli.make_context("regionvlp", list(words))
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, f"no command {name}"
        command = found
        context = command.make_context(name, rest, parent=context)


def check_ours(command: Command, words: list[str]) -> None:
    try:
        parse(words)
    except click.exceptions.Exit:
        pass  # --help, --version
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        assert not command.block, f"{command} lacks something"
    for option, value in itertools.pairwise(words):
        if option == "--set":
            assert is_setting(value.partition("=")[0]), f"{command}: no setting {value}"


def is_setting(dotted: str) -> bool:
    for document in documents():
        model: Any = document.model
        for part in dotted.split("."):
            fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
            if part not in fields:
                break
            model = fields[part].annotation
        else:
            return True
    return False


def check_foreign(words: list[str]) -> None:
    """What is left to check of a command of another program: the names of ours that it mentions."""
    program, *rest = words
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == "pip":
        for extra in re.findall(r"(?:\.|regionvlp)\[(\w+)\]", " ".join(rest)):
            assert extra in settings["project"]["optional-dependencies"]
    elif program in ("python", "python3"):
        assert importlib.util.find_spec(rest[rest.index("-m") + 1]) is not None
    elif program == "bash":
        assert (ROOT / rest[0]).is_file()
    elif program == "docker" and rest[0] == "build":
        assert (ROOT / rest[rest.index("-f") + 1]).is_file()


def ours(words: tuple[str, ...]) -> list[str] | None:
    """What follows ``regionvlp``, also where torchrun, python or a container starts it."""
    listed = list(words)
    if listed[0] == "regionvlp":
        return listed[1:]
    if "-m" in listed and listed[listed.index("-m") + 1] == "regionvlp":
        return listed[listed.index("-m") + 2 :]
    image = next((place for place, word in enumerate(listed) if re.fullmatch(r"regionvlp:\w+", word)), None)
    return listed[image + 1 :] if listed[:2] == ["docker", "run"] and image is not None else None


def test_the_manuals_are_there() -> None:
    names = {relative(file) for file in MANUALS}
    wanted = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "configs/REFERENCE.md"}
    assert wanted | {f"{folder}/README.md" for folder in FOLDERS[1:-1]} <= names
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_exists(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ours(command.words)
    if words is None:
        check_foreign(list(command.words))
    else:
        check_ours(command, words)


@pytest.mark.parametrize("file", MANUALS, ids=relative)
def test_options_within_sentences_exist(file: Path) -> None:
    known = {"--help", "--version"} | FOREIGN

    def collect(command: click.Command) -> None:
        known.update(option for parameter in command.params for option in parameter.opts)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                part = command.get_command(context, name)
                assert part is not None
                collect(part)

    collect(cli)
    for option in re.findall(
        r"(?<![\w-])--[a-z][a-z-]*", " ".join(re.findall(r"`([^`\n]+)`", file.read_text("utf-8")))
    ):
        assert option in known, f"{relative(file)} speaks of {option}"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")


@pytest.mark.parametrize("file", MANUALS, ids=relative)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (file.parent / path).resolve() if path else file
        assert found.exists(), f"{relative(file)} links to {target}"
        if anchor:
            text = re.sub(r"^```.*?^```$", "", found.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
            assert anchor in {slug(line) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}, target


# Running them

# Why a command is not run here, by what it holds. Everything else is.
NOT_RUN = {
    "weights fetch": "needs a network or a file of other people",
    "clip.mp4@12s": "needs a clip of that name",
    "photo.jpg": "needs a picture of that name",
    "hub:": "needs a network, or a model of other people",
    "--fine": "needs an index by such a model",
    "weights convert": "needs a file of other people",
    "import-butd": "needs a file of other people",
    "eval msrvtt": "needs MSR-VTT",
    "results_2M_train.csv": "needs WebVid",
    "Train_GCC-training.tsv": "needs CC3M",
    "--engine ray": "needs a cluster",
    "bench ": "takes minutes; each has tests of its own",
    "serve ": "serves until it is told to stop; has tests of its own",
    "mcp INDEX": "waits for an agent; has tests of its own",
    "/eval/test": "needs evaluations of that name; has tests of its own",
    "--out demo-out": "takes minutes; --quick is run",
}
HEAVY = ("demo", "toyworld", "toy/", "ablate", "profile")
# What makes them small, by sub-command; later options win.
SMALLER = {
    "extract": ["--detector", "toy", "--device", "cpu"],
    "toyworld": ["--train", "8", "--test", "4"],
    "index": ["--detector", "toy"],
    "pretrain": [
        "--set", "train.max_steps=2", "--set", "train.batch_size=4", "--set", "optim.warmup_steps=0",
        "--set", "model.video.feature_width=256",
    ],
    "finetune": ["--set", "train.max_steps=1"],
    "demo": ["--quick"],
}  # fmt: skip
ABLATION = ["--seeds", "1", "--set", "train.batch_size=4", "--set", "train.workers=0"]
TINY = {
    "tokenizer": {"vocab_size": 300},
    "data": {
        "sources": [{"captions": "captions.csv", "shards": "SHARDS"}], "frames": 2, "regions": 4, "text_length": 16
    },
    "model": {
        "video": {
            "feature_width": 256, "width": 16, "depth": 1, "heads": 2, "frames": 2, "regions": 4, "joint_width": 8
        },
        "text": {"width": 16, "depth": 1, "heads": 2, "mlp_width": 16, "max_length": 16, "joint_width": 8},
    },
    "train": {"batch_size": 4, "workers": 0, "device": "cpu", "epochs": 1},
    "eval": {"source": {"captions": "held_out.csv", "shards": "SHARDS"}},
}  # fmt: skip


def runnable(*, heavy: bool) -> list[Command]:
    found = []
    for command in COMMANDS:
        text = shlex.join(command.words)
        if command.block and command.words[0] == "regionvlp" and not any(part in text for part in NOT_RUN):
            is_heavy = any(part in text.split(maxsplit=1)[1] for part in HEAVY) and "demo.yaml" not in text
            if is_heavy == heavy:
                found.append(command)
    return found


def shrunk(command: Command) -> list[str]:
    words = [
        word.replace("$SLURM_ARRAY_TASK_ID", "1").replace("$SLURM_ARRAY_TASK_COUNT", "2") for word in command.words
    ]
    words = words[1:]
    if words[0] == "ablate":
        one = ["train.max_steps=1", "train.save_every=never", "optim.warmup_steps=0"]
        steps = [] if "--variants" in words else [part for key in one for part in ("--set", key)]
        return [*words, *ABLATION, *steps]
    if "halves:Halves" in words:  # small enough
        return words
    return [*words, *SMALLER.get(words[0], [])]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the manuals take for granted: videos, a list of them, captions, a configuration."""
    folder = tmp_path_factory.mktemp("readme")
    write_clips(folder / "DIR", 8, split="train", seed=0)
    lines = (folder / "DIR" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for name in ("captions.csv", "held_out.csv"):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["video_id", "caption"])
            writer.writerows([row["video_id"], row["caption"]] for row in rows)
    clips = sorted(clip.relative_to(folder / "DIR") for clip in (folder / "DIR").rglob("*.mp4"))
    (folder / "LIST.csv").write_text("\n".join(["path", *map(str, clips)]) + "\n", encoding="utf-8")
    (folder / "FILE").write_text(json.dumps(TINY), encoding="utf-8")  # JSON is YAML
    own_detector, own_boxes = examples()
    (folder / "halves.py").write_text(own_detector, encoding="utf-8")
    with contextlib.chdir(folder):
        exec(compile(own_boxes, "README.md", "exec"), {})
    return folder


def examples() -> tuple[str, str]:
    """A detector of one's own and boxes of one's own, as the manual of extraction shows them."""
    pieces = [body for name, body in blocks((ROOT / "extract" / "README.md").read_text("utf-8")) if name == "python"]
    of_detector = next(piece for piece in pieces if "def detect(" in piece)
    of_boxes = next(piece for piece in pieces if "boxes.parquet" in piece)
    return of_detector, of_boxes


def test_examples_are_those_of_the_docstrings() -> None:
    for piece, module in zip(examples(), (plugin, boxes), strict=True):
        assert module.__doc__ is not None
        assert textwrap.dedent(module.__doc__.split("::\n\n")[-1]).startswith(piece.rstrip())


def run_all(chosen: list[Command], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in chosen:
        code = run(shrunk(command))
        said = capfd.readouterr()
        assert code == 0, f"{command}\n{said.out}\n{said.err}"


def test_commands_run(workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(workplace)
    chosen = runnable(heavy=False)
    assert {"extract", "pretrain", "eval", "status", "shards", "weights", "doctor"} <= {c.words[1] for c in chosen}
    run_all(chosen, monkeypatch, capfd)
    assert (workplace / "page.html").stat().st_size > 1000


@pytest.mark.slow
def test_heavy_commands_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    if not (workplace / "SHARDS").exists():
        assert run(["extract", "--videos", "DIR", "--out", "SHARDS", *SMALLER["extract"]]) == 0
    chosen = runnable(heavy=True)
    assert {"demo", "toyworld", "ablate", "profile"} <= {command.words[1] for command in chosen}
    run_all(chosen, monkeypatch, capfd)


def test_python_in_the_library_manual_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    if not (workplace / "SHARDS").exists():
        assert run(["extract", "--videos", "DIR", "--out", "SHARDS", *SMALLER["extract"]]) == 0
    pieces = [body for name, body in blocks((ROOT / "regionvlp" / "README.md").read_text("utf-8")) if name == "python"]
    assert len(pieces) == 3
    tokens = {name: torch.randn(3, 5, 8, requires_grad=True) for name in ("regions", "words")}
    pooled = {name: torch.randn(3, 8, requires_grad=True) for name in ("clips", "captions")}
    masks = {name: torch.ones(3, 5, dtype=torch.bool) for name in ("region_mask", "word_mask")}
    names: dict[str, Any] = {}
    for piece in pieces:
        names |= {**tokens, **pooled, **masks}
        exec(compile(piece, "README.md", "exec"), names)
    assert all(tensor.grad is not None for tensor in (*tokens.values(), *pooled.values()))
