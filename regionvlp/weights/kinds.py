"""What a file given as weights is, where it is not what a command wants: for whoever gives it another's file.

In: a path, or the names of a file's tensors. Out: the complaint that says what it is and what to do. Free of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from regionvlp.errors import InputError, WeightsError, first_line

# A zip; a pickle of protocols 2 to 5, or a dictionary, list or object of older ones; the header of a safetensors file.
_BEGINNINGS = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]|\([dl]|[}\]]|c[\w.]+\n|.{8}\{", re.DOTALL)


class Architecture(NamedTuple):
    """A kind of weights file.

    Attributes:
        name: what to call it.
        patterns: regular expressions that each fit the beginning of some name in it.
        hint: what to do with it; ``{path}`` stands for the file.
    """

    name: str
    patterns: tuple[str, ...]
    hint: str

    def fits(self, names: Iterable[str]) -> bool:
        """Whether the names of a file's tensors are such a file's."""
        listed = list(names)
        return all(any(re.match(pattern, name) for name in listed) for pattern in self.patterns)


DEMOVLP = Architecture(
    "a DemoVLP checkpoint",
    (r"object_model\.",),
    "convert it with 'regionvlp weights convert demovlp {path} --out DIR'",
)
DETECTOR = Architecture(
    "a region detector",
    (r"(model\.)?(backbone|proposal_generator|roi_heads)\.",),
    "convert it with 'regionvlp weights convert {path} --out DIR'",
)
FROZEN = Architecture(
    "a checkpoint of Frozen in Time",
    (r"video_model\.", r"vid_proj\."),
    "convert it with 'regionvlp weights convert frozen {path} --out DIR'",
)
_NOTHING = "no command here converts it"
# The first that fits is it.
KNOWN = (
    Architecture("a checkpoint of regionvlp", (r"model\.(video|text)\.",), "use its folder as it is"),
    DEMOVLP,
    Architecture("a checkpoint of MCQ or MILES", (r"video_model\.", r"text_proj\."), _NOTHING),
    FROZEN,
    Architecture("a CLIP", (r"(visual|clip|vision_model)\.",), _NOTHING),
    DETECTOR,
    Architecture(
        "a ViT",
        (r"patch_embed\.|(vit\.)?embeddings\.patch_embeddings\.",),
        "start a model from one in timm's layout with model.video.pretrained",
    ),
    Architecture("a BERT", (r"(bert\.)?encoder\.layer\.0\.",), "the text encoder here is a DistilBERT"),
    Architecture(
        "a DistilBERT", (r"(distilbert\.)?transformer\.layer\.0\.",), "start a model from it with model.text.pretrained"
    ),
)


def stranger(path: Path, names: Iterable[str], wanted: Architecture) -> WeightsError | None:
    """The complaint about a file of a known kind where another is ``wanted``; None if it is of no known kind.

    Args:
        path: the file. names: of its tensors, with or without the ``module.`` of parallel training.
        wanted: is never complained about, nor what is only like it.
    """
    bare = [name.removeprefix("module.") for name in names]
    for known in KNOWN:
        if known is wanted and known.fits(bare):
            return None
        if known.fits(bare):
            return WeightsError(f"{path} is {known.name}, not {wanted.name}", known.hint.format(path=path))
    return None


def check_weights_file(path: Path) -> None:
    """Says no to what cannot be a weights file, by how it begins.

    Raises:
        InputError: it is not there, or a folder. WeightsError: it is empty, or no checkpoint.
    """
    if path.is_dir():
        converted = (path / "detector.yaml").is_file() or all(
            (path / name).is_file() for name in ("config.yaml", "model.safetensors")
        )
        hint = "it is converted already: use it as it is" if converted else "give the file that lies in it"
        raise InputError(f"{path} is a folder, not a weights file", hint)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}", "check the path")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check its permissions") from None
    if not start:
        raise WeightsError(f"{path} is empty", "get it again")
    if not _BEGINNINGS.match(start):
        raise WeightsError(f"{path} is no checkpoint file", "check what it is, or get it again")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header that lies in it, and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") + 8 <= path.stat().st_size


def unreadable(path: Path, error: Exception) -> WeightsError:
    """The complaint about a weights file whose reader raised ``error``."""
    return WeightsError(f"cannot read weights {path}: {first_line(error)}", "the file is damaged: get it again")
