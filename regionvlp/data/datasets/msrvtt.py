"""MSR-VTT, in the layouts in which it is handed out.

- The original: ``train_val_videodatainfo.json`` and ``test_videodatainfo.json``, also inside their zips.
- The folder published with Frozen in Time (and used by DemoVLP): ``annotation/MSR_VTT.json``, and below
  ``high-quality/structured-symlinks`` the lists of the splits and ``jsfusion_val_caption_idx.pkl``.
- CLIP4Clip's: ``MSRVTT_data.json``, ``MSRVTT_train.9k.csv``, ``MSRVTT_JSFUSION_test.csv``.

In: a folder that holds any mixture of these files, anywhere below it. Out: captions. Files are found by name, and
everything countable is counted: a list or a clip that is cut short is an error, never a smaller gallery.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pyarrow as pa

from regionvlp.data.caption_table import Captions
from regionvlp.data.datasets.parts import files_below
from regionvlp.data.formats import Queries
from regionvlp.data.tables import Table
from regionvlp.errors import InputError
from regionvlp.weights.unpickling import load_values

Split = Literal["1ka", "1kb", "7k", "full"]
Part = Literal["train", "val", "test"]

CAPTIONS_PER_CLIP = 20
SENTENCE_FILES = ("train_val_videodatainfo.json", "test_videodatainfo.json", "MSRVTT_data.json", "MSR_VTT.json")
_INDEX_FILE = "jsfusion_val_caption_idx.pkl"
_TEST_CSV = "MSRVTT_JSFUSION_test.csv"
# The official split goes by number; the others by lists, of which any one will do. Each with its number of clips.
_RANGES: dict[tuple[str, str], range] = {
    ("full", "train"): range(6513),
    ("full", "val"): range(6513, 7010),
    ("full", "test"): range(7010, 10000),
    ("7k", "train"): range(7010),
}
_LISTS: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {
    ("1ka", "train"): (9000, ("train_list_jsfusion.txt", "MSRVTT_train.9k.csv")),
    ("1ka", "test"): (1000, ("val_list_jsfusion.txt", _TEST_CSV)),
    ("1kb", "train"): (6656, ("train_list_miech.txt",)),
    ("1kb", "test"): (1000, ("test_list_miech.txt",)),
}
# What there is: no list of validation clips belongs to 1k-A and 1k-B, and 7k is tested on the clips of 1k-A.
PARTS = tuple(sorted({"-".join(home) for home in (*_RANGES, *_LISTS)} | {"7k-test"}))
_HINT = "copy the public file below the folder"


def parse_split(text: str | None, *, needed: bool = False) -> tuple[Split, Part]:
    """Reads ``<split>-<part>``, such as ``1ka-test`` or ``full-train``.

    Args:
        text: the name, in any case of letters; None means ``1ka-test``.
        needed: refuse None: who trains must not be given clips to test on.

    Raises:
        InputError: it is none of the parts that there are, or missing.
    """
    known = f"parts are {', '.join(PARTS)}"
    if text is None:
        if needed:
            raise InputError("which part of MSR-VTT to train on is not said", f"set split; {known}")
        return "1ka", "test"
    split, _, part = text.strip().lower().partition("-")
    if split not in get_args(Split) or part not in get_args(Part):
        raise InputError(f"unknown split of MSR-VTT '{text}'", known)
    return cast(Split, split), cast(Part, part)


def load_msrvtt(path: Path, split: Split = "1ka", part: Part = "test", queries: Queries | None = None) -> Captions:
    """Reads one part of one split.

    Args:
        path: the folder below which the files lie, or one of the files (which stands for its folder).
        split: ``1ka`` ("jsfusion", 9000 / 1000 clips), ``1kb`` ("miech", 6656 / 1000), ``full`` (6513 / 497 / 2990),
            or ``7k``: the training and validation clips of ``full``, tested on the clips of ``1ka``.
        part: 1k-A, 1k-B and 7k have no ``val``: the public code validates on the test clips.
        queries: of each clip ``all`` 20 captions in the order of their numbers, the ``first``, or the one that the
            ``index_file`` names (the pickled index, or the sentence of CLIP4Clip's CSV). By default ``index_file``
            for the test clips of 1k-A, as its protocol wants, and ``all`` otherwise.

    Returns:
        Captions clip by clip in the order of the list, with ``split`` such as ``1ka-test`` and source ``msrvtt``.

    Raises:
        InputError: a file is missing, damaged, or does not hold what the split consists of.
    """
    files = _find_files(path)
    # The 7k protocol trains on other clips and tests on those of 1k-A.
    home = ("1ka", "test") if (split, part) == ("7k", "test") else (split, part)
    clips = _clips(home, files, path)
    queries = queries or ("index_file" if home == ("1ka", "test") else "all")
    name = f"{split}-{part}"
    by_index = _INDEX_FILE in files and any(name in files for name in SENTENCE_FILES)
    if queries == "index_file" and _TEST_CSV in files and not by_index:
        return _from_test_csv(files[_TEST_CSV], clips, name)
    captions = _sentences(set(clips), files, path)
    if queries == "first":
        return _table([(clip, captions[clip][0]) for clip in clips], name)
    if queries == "index_file":
        index = _caption_index(files, clips, path)
        return _table([(clip, captions[clip][index[clip]]) for clip in clips], name)
    return _table([(clip, sentence) for clip in clips for sentence in captions[clip]], name)


def _table(pairs: list[tuple[str, tuple[str, str]]], split: str) -> Captions:
    """Captions of pairs of clip and (number, text)."""
    clips, numbers, texts = (
        pa.chunked_array([pa.array(column, pa.string())])
        for column in (
            [clip for clip, _ in pairs],
            [number for _, (number, _) in pairs],
            [text for _, (_, text) in pairs],
        )
    )
    return Captions.build(clips, texts, "msrvtt", split=split, caption_id=numbers)


def _from_test_csv(path: Path, clips: list[str], split: str) -> Captions:
    table = Table(path)
    read = table.read("video", "caption", *(["id"] if table.has("id") else []))
    keys = read.get("id", read["video"]).to_pylist()
    rows = dict(zip(read["video"].to_pylist(), zip(keys, read["caption"].to_pylist(), strict=True), strict=True))
    for clip in clips:
        if clip not in rows:
            raise InputError(f"{path} has no sentence for {clip}", "use the public file")
    return _table([(clip, rows[clip]) for clip in clips], split)


# Which clips


def _clips(home: tuple[str, str], files: Mapping[str, Path], folder: Path) -> list[str]:
    if home in _RANGES:
        return [f"video{number}" for number in _RANGES[home]]
    if home not in _LISTS:
        raise InputError(
            f"the split {home[0]} of MSR-VTT has no validation part",
            "hold clips of its training part out, or use split full-val",
        )
    count, names = _LISTS[home]
    name = next((name for name in names if name in files), None)
    if name is None:
        raise InputError(f"no list of the {home[0]} {home[1]} clips below {folder} ({' or '.join(names)})", _HINT)
    path = files[name]
    clips = [clip.strip() for clip in Table(path).read("video")["video"].to_pylist()]
    if len(set(clips)) != len(clips) or len(clips) != count:
        raise InputError(
            f"{path} names {len(set(clips))} different clips on {len(clips)} lines, {count} expected",
            "the file is cut short or of another split",
        )
    return clips


# What is said about them


def _sentences(wanted: set[str], files: Mapping[str, Path], folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Clip -> its captions as (number, text), in the order of their numbers."""
    captions: dict[str, list[tuple[str, str]]] = {}
    for name in SENTENCE_FILES:
        left = wanted - captions.keys()
        if left and name in files:
            captions.update(_read_sentences(files[name], name, left))
    left = wanted - captions.keys()
    if left:
        read = ", ".join(str(files[name]) for name in SENTENCE_FILES if name in files) or "none of its JSON files"
        raise InputError(
            f"no captions for {len(left)} of {len(wanted)} clips of MSR-VTT, such as {min(left)}; found {read}",
            f"needed: {' and '.join(SENTENCE_FILES[:2])}, or {' or '.join(SENTENCE_FILES[2:])}",
        )
    for clip, sentences in captions.items():
        if len(sentences) != CAPTIONS_PER_CLIP:
            raise InputError(
                f"{clip} of MSR-VTT has {len(sentences)} captions below {folder}, {CAPTIONS_PER_CLIP} expected",
                "the file is damaged or another edition",
            )
    return captions


def _read_sentences(path: Path, name: str, wanted: set[str]) -> dict[str, list[tuple[str, str]]]:
    document = _read_json(path, name)
    # Frozen's file calls its list and the clip's name as COCO does, the others by the data set's own names.
    list_key, clip_key = ("sentences", "video_id") if "sentences" in document else ("annotations", "image_id")
    found: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    try:
        for number, row in enumerate(document[list_key]):
            if (clip := row[clip_key]) in wanted:
                found[clip].append((int(row.get("sen_id", number)), str(row["caption"])))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InputError(f"{path} does not hold the captions of MSR-VTT", "use the public file") from None
    return {clip: [(str(number), text) for number, text in sorted(rows)] for clip, rows in found.items()}


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                member = next(member for member in archive.namelist() if member.rpartition("/")[2] == name)
                data = archive.read(member)
        else:
            data = path.read_bytes()
        document = json.loads(data)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the file") from None
    except (ValueError, zipfile.BadZipFile):
        raise InputError(f"{path} is damaged: it holds no valid {name}", "download it again") from None
    if not isinstance(document, dict):
        raise InputError(f"{path} does not hold the captions of MSR-VTT", "use the public file")
    return document


def _caption_index(files: Mapping[str, Path], clips: list[str], folder: Path) -> dict[str, int]:
    """Clip -> which of its 20 captions is the query."""
    path = files.get(_INDEX_FILE)
    if path is None:
        raise InputError(f"no {_INDEX_FILE} and no {_TEST_CSV} below {folder}", _HINT)
    try:
        with path.open("rb") as file:
            index = load_values(file)
        chosen = {clip: index[clip] for clip in clips}
    # A damaged pickle may raise nearly anything.
    except KeyError as error:
        raise InputError(f"{path} names no caption for {error.args[0]}", "use queries: all or first") from None
    except Exception as error:
        raise InputError(f"{path} is not an index of captions: {error}", "use the public file") from None
    for clip, number in chosen.items():
        if not isinstance(number, int) or not 0 <= number < CAPTIONS_PER_CLIP:
            raise InputError(f"{path} names caption {number!r} of {clip}", f"expected 0 to {CAPTIONS_PER_CLIP - 1}")
    return chosen


# Where the files are


def _find_files(path: Path) -> dict[str, Path]:
    """Known name -> file, found at or below the folder; a zip stands for a member of that name."""
    if not path.exists():
        raise InputError(f"no annotations at {path}", "check the path")
    names = {*SENTENCE_FILES, _INDEX_FILE, *(name for _, names in _LISTS.values() for name in names)}
    folder = path if path.is_dir() else path.parent
    if folder.name == "annotation" and folder != path:
        folder = folder.parent  # Frozen's JSON file: the lists of the splits lie beside its folder
    files: dict[str, Path] = {}
    archives: list[Path] = []
    for file in files_below(folder):
        plain = file.name.lower()
        if file.name in names:
            files.setdefault(file.name, file)
        elif plain.endswith(".zip") and any(word in plain for word in ("annotation", "info", "msr")):
            archives.append(file)
    for archive in archives:
        for name in _zip_names(archive):
            if name in SENTENCE_FILES:
                files.setdefault(name, archive)
    return files


def _zip_names(path: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield from (member.rpartition("/")[2] for member in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        raise InputError(f"{path} is not a whole zip file", "download it again, or unpack it") from None
