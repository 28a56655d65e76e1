"""Every command's ``--help`` answers at once: it imports nothing that takes long, whatever the command itself needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from regionvlp.pipelines.cli import cli

# What takes a good part of a second or more to import. numpy and rich do not.
HEAVY = (
    "torch", "torchvision", "transformers", "tokenizers", "safetensors", "huggingface_hub", "h5py", "av", "decord",
    "torchcodec", "ray", "nltk", "fastapi", "tensorboard",
)  # fmt: skip
MOST_MODULES = 650  # python itself, click, rich, pydantic and pyarrow are about 550


def command_paths() -> list[tuple[str, ...]]:
    """Every command and sub-command, as what is written after ``regionvlp``."""

    def below(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [path]
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                part = command.get_command(context, name)
                assert part is not None
                found += below(part, (*path, name))
        return found

    return below(cli, ())


@pytest.mark.parametrize("path", command_paths(), ids=lambda path: " ".join(path) or "regionvlp")
def test_help_imports_nothing_heavy(path: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys; from regionvlp.pipelines.cli import run; "
        f"code = run({[*path, '--help']!r}); "
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules)); "
        "sys.exit(f'{code} {len(sys.modules)} ' + ','.join(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Usage: regionvlp" in done.stdout
    exit_code, modules, heavy = done.stderr.rstrip("\n").split(" ")
    assert exit_code == "0"
    assert heavy == "", f"imported: {heavy}"
    assert int(modules) < MOST_MODULES


def test_the_package_itself_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, regionvlp; sys.exit(','.join(sorted(set({HEAVY!r}) & set(sys.modules))) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported: {done.stderr}"
