"""The shipped configurations, by stage, and how to find one by its name."""

from __future__ import annotations

from pathlib import Path

from regionvlp.errors import InputError, nearest

_FOLDER = Path(__file__).parent


def find_config(path: Path) -> Path:
    """``path`` itself, or, where no file lies there, the shipped configuration of that name: ``demo`` or ``demo.yaml``.

    Raises:
        InputError: a bare name is neither.
    """
    if path.is_file() or len(path.parts) != 1:
        return path
    known = {file.stem: file for file in _FOLDER.glob("*/*.yaml")}
    found = known.get(path.name.removesuffix(".yaml"))
    if found is None:
        hint = nearest(path.stem, known) or f"those that come along: {', '.join(sorted(known))}"
        raise InputError(f"no configuration {path} here, and none of that name comes along", hint)
    return found


def shipped(stage: str) -> dict[str, str]:
    """The configurations of a stage (``pretrain``, ``finetune`` ...): name -> the first sentence of its comment."""
    return {file.stem: _first_sentence(file) for file in sorted((_FOLDER / stage).glob("*.yaml"))}


def _first_sentence(file: Path) -> str:
    comment = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        comment.append(line.removeprefix("# "))
    sentence, _, _ = " ".join(comment).partition(". ")
    return sentence.removesuffix(":").removesuffix(".")
