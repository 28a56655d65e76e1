"""Joins annotated videos with those of a shard folder, column by column; and finds what two sets of captions share.

An annotated id fits a shard's id when the two are equal, or when, without the extension of a video or picture, the
shorter of the two paths is the end of the longer: ``video7`` and ``all/video7`` fit ``videos/all/video7.mp4``, but
``test/7`` does not fit ``train/7.mp4``. Backslashes count as slashes, and letters with their accents as one however
they are composed. A join is one to one: an id that fits two videos, and two ids that fit one, are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.data.caption_table import Caption, Captions
from regionvlp.data.tables.naming import MEDIA_SUFFIX
from regionvlp.errors import InputError

log = logging.getLogger(__name__)

EXAMPLES = 3  # ids that an error names
_DEEPEST = 8  # folders of a path that are compared
_MANY_CAPTIONS = 0.2  # share of the held-out captions that chance alone does not put into training as well
_WRITE_IDS = "write the ids of the shards into the annotations, with folder and extension"


@dataclass(frozen=True)
class _Fit:
    """Which ids some names fit.

    Attributes:
        places: [names] int64, the row of the ids, -1 for none.
        doubtful: names that fit two: the name's row and the two ids' rows.
    """

    places: NDArray[np.int64]
    doubtful: list[tuple[int, int, int]]


def join(captions: Captions, ids: Sequence[str] | pa.Array) -> NDArray[np.int64]:
    """For each caption the row of its video among ``ids``, [N] int64; -1 where it is not there.

    Raises:
        InputError: an id fits two videos, two ids fit one, or the columns that may name the videos contradict.
    """
    available = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())
    available = available.combine_chunks() if isinstance(available, pa.ChunkedArray) else available
    return _chosen(captions, available)[0]


def resolve_videos(
    captions: Sequence[Caption],
    available_ids: Iterable[str],
    *,
    allow_missing: bool = False,
    failures: Mapping[str, str] | None = None,
) -> Captions:
    """Replaces annotated video ids by the ids of the shards.

    Args:
        captions: the table as annotated.
        available_ids: the ids of the shards.
        allow_missing: drop the captions of videos that are not there (and log how many) instead of refusing them:
            recall on a part of a gallery is easier than on all of it.
        failures: of videos that extraction could not read, the reason, so that an error can say so.

    Raises:
        InputError: see :func:`join`; no video at all is there; or some are not, unless allowed.
    """
    table = Captions.of(captions)
    available = available_ids if isinstance(available_ids, pa.Array) else pa.array(list(available_ids), pa.string())
    places, codes, names = _chosen(table, available)
    absent = places < 0
    if absent.any():
        missing = names.take(pa.array(np.unique(codes[absent])))
        message = f"{len(missing)} of {len(np.unique(codes))} annotated videos are not in the shards"
        if absent.all() or not allow_missing:
            raise _missing(missing, message, available, nothing=bool(absent.all()), failures=failures or {})
        log.warning("%s and are left out, with %d of %d captions", message, int(absent.sum()), len(table))
        table, places, codes = table.take(np.flatnonzero(~absent)), places[~absent], codes[~absent]
    kept, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    order = np.argsort(first)
    new = np.empty(len(kept), np.int64)
    new[order] = np.arange(len(kept))
    return table.joined(new[inverse], available.take(pa.array(kept[order])))


def missing_videos(captions: Sequence[Caption], available_ids: Iterable[str]) -> list[str]:
    """The annotated ids that fit no video of the shards, in the order of the table.

    Raises:
        InputError: see :func:`join`.
    """
    places, codes, names = _chosen(Captions.of(captions), pa.array(list(available_ids), pa.string()))
    return list(names.take(pa.array(_in_order(codes[places < 0]))).to_pylist())


@dataclass(frozen=True)
class Overlap:
    """What captions to train on and captions held out have in common.

    Attributes:
        videos, held_out_videos: held-out videos that are trained on as well, of so many.
        captions, held_out_captions: held-out captions whose words are trained on as well, of so many.
        example: one of the videos, or None.
    """

    videos: int
    held_out_videos: int
    captions: int
    held_out_captions: int
    example: str | None

    @property
    def warning(self) -> str | None:
        """What to tell the user, or None where there is nothing to worry about."""
        texts = f"{self.captions:,} of {self.held_out_captions:,} held-out captions"
        if self.videos:
            return (
                f"{self.videos:,} of {self.held_out_videos:,} held-out videos are trained on as well, such as "
                f"{self.example} ({texts} too): figures on them say nothing about unseen videos"
            )
        if self.captions > _MANY_CAPTIONS * self.held_out_captions:
            return f"{texts} are trained on as well, word for word: are they the same videos under other names?"
        return None


def overlap(training: Captions, held_out: Captions) -> Overlap:
    """Counts what is trained on and measured on as well: by video, whose ids need only fit, and by the words."""
    fit = _fit(_whole(held_out.video_ids), _whole(training.video_ids))
    shared = fit.places >= 0
    example = held_out.video_ids[int(shared.argmax())].as_py() if shared.any() else None
    known = pc.unique(_plain(training.texts))
    captions = pc.sum(pc.is_in(_plain(held_out.texts), value_set=known)).as_py() or 0
    return Overlap(int(shared.sum()), len(shared), int(captions), len(held_out), example)


def _chosen(captions: Captions, available: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int32], pa.Array]:
    """Of the names that the rows' videos may have, those that fit best: the place of each row, its code, the names."""
    tried = []
    refusals: list[InputError] = []
    for codes, names in captions.names():
        try:
            places = _one_to_one(names, available)[codes]
        except InputError as error:
            refusals.append(error)
            continue
        tried.append((places, codes, names))
    if not tried:
        raise refusals[0]
    best = max(tried, key=lambda one: int((one[0] >= 0).sum()))  # of equals the first
    if refusals and (best[0] < 0).any():
        raise refusals[0]
    for places, codes, names in tried:
        clash = (places >= 0) & (best[0] >= 0) & (places != best[0])
        if clash.any():
            row = int(clash.argmax())
            raise InputError(
                f"row {row + 1} of the captions calls its video '{best[2][int(best[1][row])]}' and "
                f"'{names[int(codes[row])]}', which are two videos of the shards",
                "say which column counts: columns {video: NAME}",
            )
    if (best[0] < 0).all() and (whole := captions.files()) is not None:
        return _of_whole_clips(captions, *whole, available, best)
    return best


def _of_whole_clips(
    captions: Captions,
    codes: NDArray[np.int32],
    names: pa.Array,
    available: pa.Array,
    stretches: tuple[NDArray[np.int64], NDArray[np.int32], pa.Array],
) -> tuple[NDArray[np.int64], NDArray[np.int32], pa.Array]:
    """Captions of stretches beside shards of whole clips: taken for the clips' own where each has one stretch."""
    places = _one_to_one(names, available)[codes]
    if (places < 0).all():
        return stretches
    pairs = np.unique(np.stack([codes, captions.video_index]), axis=1)[0]
    several = np.flatnonzero(np.diff(pairs) == 0)
    if len(several):
        raise InputError(
            f"the captions are of stretches, of which '{names[int(pairs[several[0]])]}' has several, and the shards "
            "hold whole clips",
            "extract the stretches: give this table to 'extract --videos'",
        )
    log.warning(
        "the captions of %d videos are of a stretch of each, and the shards hold the whole clips: these are used",
        len(names),
    )
    return places, codes, names


def _one_to_one(names: pa.Array, available: pa.Array) -> NDArray[np.int64]:
    """The place of each name among the ids, -1 for none.

    Raises:
        InputError: a name fits two ids, or two names fit one.
    """
    fit = _fit(names, available)
    if fit.doubtful:
        name, one, other = fit.doubtful[0]
        both = sorted((str(available[one]), str(available[other])))
        raise InputError(f"the annotated video '{names[name]}' may be '{both[0]}' or '{both[1]}'", _WRITE_IDS)
    placed = np.flatnonzero(fit.places >= 0)
    found, counts = np.unique(fit.places[placed], return_counts=True)
    if (counts > 1).any():
        place = found[(counts > 1).argmax()]
        one, other = placed[fit.places[placed] == place][:2]
        raise InputError(
            f"'{names[int(one)]}' and '{names[int(other)]}' are two annotated videos, and both fit "
            f"'{available[int(place)]}' of the shards",
            _WRITE_IDS,
        )
    return fit.places


def _fit(names: pa.Array, ids: pa.Array) -> _Fit:
    """Which ids the names fit; both distinct."""
    places = np.full(len(names), -1, np.int64)
    doubtful: list[tuple[int, int, int]] = []
    if not len(ids) or not len(names):
        return _Fit(places, doubtful)
    places[:] = pc.fill_null(pc.index_in(names, value_set=ids), -1).to_numpy(zero_copy_only=False)
    plain_names, plain_ids = _normal(names), _normal(ids)
    stems = pc.replace_substring_regex(plain_ids, MEDIA_SUFFIX, "")
    # The whole name first: in an id without extension, what follows the last dot belongs to the name.
    for form in (plain_names, pc.replace_substring_regex(plain_names, MEDIA_SUFFIX, "")):
        if not (places < 0).any():
            break
        _place_by_ends(places, doubtful, form, stems)
    return _Fit(places, doubtful)


def _place_by_ends(
    places: NDArray[np.int64], doubtful: list[tuple[int, int, int]], names: pa.Array, ids: pa.Array
) -> None:
    """Places what has none by the ends of the paths, those in the very same folders first."""
    depth_of_names, depth_of_ids = _depths(names), _depths(ids)
    pairs = [(a, b) for a in np.unique(depth_of_names[places < 0]) for b in np.unique(depth_of_ids)]
    settled: NDArray[np.bool_] | None = None
    for a, b in sorted(pairs, key=lambda pair: (pair[0] != pair[1], pair)):
        if a != b and settled is None:
            settled = places >= 0  # in the very same folders, which leaves no doubt
        depth = min(a, b)
        rows = np.flatnonzero(depth_of_names == a)
        rows = rows[places[rows] < 0] if settled is None else rows[~settled[rows]]
        among = np.flatnonzero(depth_of_ids == b)
        keys, values = _end(names.take(pa.array(rows)), a, depth), _end(ids.take(pa.array(among)), b, depth)
        _place(places, doubtful, rows, keys, among, values)


def _place(
    places: NDArray[np.int64],
    doubtful: list[tuple[int, int, int]],
    rows: NDArray[np.int64],
    keys: pa.Array,
    among: NDArray[np.int64],
    values: pa.Array,
) -> None:
    """Gives ``rows``, whose keys are ``keys``, their places: those of equal ``values``, which are of rows ``among``."""
    if not len(rows) or not len(among):
        return
    codes = pa.chunked_array([values, keys]).dictionary_encode()
    of_values, of_keys = (np.asarray(chunk.indices, dtype=np.int64) for chunk in codes.chunks)
    numbers = np.arange(len(values))
    first = np.full(len(codes.chunk(0).dictionary), -1, np.int64)
    last = first.copy()
    first[of_values[::-1]], last[of_values] = numbers[::-1], numbers
    hit = first[of_keys] >= 0
    found, other = among[first[of_keys[hit]]], among[last[of_keys[hit]]]
    before = places[rows[hit]]
    two = np.flatnonzero((found != other) | ((before >= 0) & (before != found)))
    for place in two[:EXAMPLES]:
        rival = other[place] if found[place] != other[place] else before[place]
        doubtful.append((int(rows[hit][place]), int(found[place]), int(rival)))
    places[rows[hit]] = found


def _normal(names: pa.Array) -> pa.Array:
    """Names in one spelling: slashes, none in front, accents composed."""
    plain = pc.replace_substring(names, "\\", "/")
    plain = pc.replace_substring_regex(plain, r"^(?:\.?/)+", "")
    return plain if pc.all(pc.string_is_ascii(plain)).as_py() else pc.utf8_normalize(plain, "NFC")


def _depths(names: pa.Array) -> NDArray[np.int64]:
    counts = np.asarray(pc.count_substring(names, "/"), dtype=np.int64) + 1
    return np.minimum(counts, _DEEPEST)


def _end(names: pa.Array, depth: int, wanted: int) -> pa.Array:
    """The last parts of paths."""
    if depth == wanted and depth < _DEEPEST:
        return names
    return pc.replace_substring_regex(names, rf"^.*/((?:[^/]+/){{{wanted - 1}}}[^/]*)$", r"\1")


def _missing(
    missing: pa.Array, message: str, available: pa.Array, *, nothing: bool, failures: Mapping[str, str]
) -> InputError:
    """What to say of annotated videos that are not in the shards: what became of them, where that is known."""
    shown = ", ".join(missing[:EXAMPLES].to_pylist()) + (", ..." if len(missing) > EXAMPLES else "")
    failed = _fit(missing, pa.array(list(failures), pa.string())).places
    if (failed >= 0).any():
        name = str(missing[int((failed >= 0).argmax())])
        reason = list(failures.values())[int(failed[failed >= 0][0])]
        count = int((failed >= 0).sum())
        return InputError(
            f"{message}: {shown}; {count} of them failed when extracted ('{name}': {reason})",
            "take them out of the captions, or allow missing videos (which makes retrieval easier)",
        )
    if not len(available):
        return InputError(f"{message}: {shown}", "the shards hold no video")
    small = _fit(pc.utf8_lower(missing), pc.utf8_lower(available)).places
    if (small >= 0).any():
        place = int((small >= 0).argmax())
        hint = (
            f"'{missing[place]}' and '{available[int(small[place])]}' differ in capital letters: write one as the other"
        )
        return InputError(f"{message}: {shown}", hint)
    if nothing:
        return InputError(f"{message}: {shown}", f"the shards hold ids such as '{available[0]}'")
    return InputError(f"{message}: {shown}", "extract them, or allow missing videos (which makes retrieval easier)")


def _in_order(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """The distinct codes in the order of their first rows."""
    found, first = np.unique(codes, return_index=True)
    return found[np.argsort(first)].astype(np.int64)


def _plain(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_lower(pc.utf8_trim_whitespace(texts))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
