from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from regionvlp.errors import InputError, ShardError
from regionvlp.search.clips import Clip
from regionvlp.search.encoders.base import words_of
from regionvlp.search.moments import moments, without_copies
from regionvlp.search.windows import check_cut, frames_in, parse_seconds, windows
from regionvlp.search.words import WORDS_NAME, Words, stem
from regionvlp.video.sampling import uniform_indices


def test_words_match_by_their_stems_and_the_rarer_weighs_more(tmp_path: Path) -> None:
    words = Words(tmp_path)
    texts = {"a": "red dog\nball", "b": "cat\ntree", "c": "dog\ntree", "d": "tree", "e": "", "f": "tree"}
    words.put(texts)
    assert words.texts() == texts
    assert set(words.match("Dogs, running!")) == {"a", "c"}
    found = words.match("a tree and a cat")
    assert max(found, key=lambda key: found[key]) == "b"
    assert all(score > 0 for score in found.values())
    assert words.match('"; DROP TABLE labels; -- NEAR( ^*') == {}
    assert words.match("") == {}


def test_a_clip_is_filed_once_and_taken_out(tmp_path: Path) -> None:
    words = Words(tmp_path)
    words.put({"a": "dog", "b": "dog"})
    words.put({"a": "cat"})
    assert set(words.match("dog")) == {"b"}
    words.keep(["a"])
    assert words.texts() == {"a": "cat"}


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / WORDS_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(ShardError, match=r"words\.sqlite cannot be used"):
        Words(tmp_path).match("dog")


def test_stems() -> None:
    assert stem("dogs") == stem("dog") == "dog"
    assert stem("jumping") == stem("jumps")
    assert stem("犬") == "犬"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog's ball jumps into the water", ["dog's", "ball", "jumps", "water"]),
        ("the the THE", ["THE"]),
        ("Dog dog", ["dog"]),
        ("?! ... 👍", []),
        ("собака бежит", ["собака", "бежит"]),
        ("it is on", ["it", "is", "on"]),
    ],
)
def test_words_of_a_query(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("duration", "cut"),
    [
        (None, [(0.0, None)]),
        (8.0, [(0.0, None)]),
        (9.0, [(0.0, 8.0), (4.0, None)]),
        (12.0, [(0.0, 8.0), (4.0, None)]),
        (17.0, [(0.0, 8.0), (4.0, 12.0), (8.0, 16.0), (12.0, None)]),
    ],
)
def test_windows_leave_nothing_out(duration: float | None, cut: list[tuple[float, float | None]]) -> None:
    assert windows(duration, 8, 4) == cut


@pytest.mark.parametrize("duration", [3.3, 8.01, 20.0, 61.7])
@pytest.mark.parametrize(("length", "stride"), [(8, 4), (5, 5), (3, 0.7)])
def test_windows_cover_every_moment(duration: float, length: float, stride: float) -> None:
    cut = [(start, duration if end is None else end) for start, end in windows(duration, length, stride)]
    for step in range(int(duration * 10)):
        assert any(start <= step / 10 < end for start, end in cut)
    assert all(end - start <= length + 1e-6 for start, end in cut) or len(cut) == 1
    assert cut[-1][1] == duration


def test_lengths_of_time() -> None:
    assert [parse_seconds(text, "--window") for text in ("8s", "0.5", "500ms", "2min", "1 m")] == [8, 0.5, 0.5, 120, 60]
    for text in ("0s", "-3", "soon", "", "8h"):
        with pytest.raises(InputError, match="--window"):
            parse_seconds(text, "--window")
    with pytest.raises(InputError, match="leave out"):
        check_cut(4, 8)


def clip(video_id: str, start: float, end: float) -> Clip:
    return Clip(f"{video_id}@{start}", video_id, "", start, end, "")


def test_overlapping_windows_are_one_moment_and_not_the_whole_video() -> None:
    ranked = [
        (0, 0.9, clip("a", 8, 16)),
        (1, 0.8, clip("a", 12, 20)),
        (2, 0.7, clip("b", 0, 8)),
        (3, 0.6, clip("a", 4, 12)),
        (4, 0.55, clip("a", 16, 24)),
        (5, 0.1, clip("a", 20, 28)),
    ]
    found = moments(ranked, worst=0.1)
    assert [(m.video_id, m.start, m.end, m.rows) for m in found] == [
        ("a", 4, 20, [0, 1, 3]),
        ("b", 0, 8, [2]),
        ("a", 16, 24, [4, 5]),
    ]
    assert [m.score for m in found] == [0.9, 0.7, 0.55]


def test_pictures_of_one_name_are_one_moment() -> None:
    ranked = [(0, 0.9, clip("a.jpg", 0, 0)), (1, 0.8, clip("b.jpg", 0, 0)), (2, 0.7, clip("a.jpg", 0, 0))]
    assert [m.video_id for m in moments(ranked, 0)] == ["a.jpg", "b.jpg"]


def test_copies_look_and_mean_the_same() -> None:
    ranked = [(row, 1 - row / 10, clip(f"v{row}", 0, 5)) for row in range(5)]
    looks = {0: 0b1111, 1: 0b1110, 2: 0xFFFF0000, 3: 0b1111, 4: 0}
    vectors = {0: [1, 0], 1: [1, 0], 2: [1, 0], 3: [0, 1], 4: [0, 1]}
    kept = without_copies(
        moments(ranked, 0), looks.__getitem__, lambda one, other: vectors[one] == vectors[other], wanted=3
    )
    assert [m.row for m in kept] == [0, 2, 3]
    assert [copy.row for copy in kept[0].copies] == [1]


def test_the_last_window_has_the_frames_that_it_shares() -> None:
    """At 25 frames a second, by the very indices that a decoder is asked for."""
    for duration in (8.0, 9.0, 10.0, 13.0, 27.0):
        seen: list[set[int]] = []
        for start, end in windows(duration, 8, 4):
            first, past = round(25 * start), round(25 * (duration if end is None else end))
            count = frames_in((start, end), duration, 8, 8)
            assert abs((past - first) / count - 25) < 4  # frames lie as far apart in every window
            seen.append({first + index for index in uniform_indices(past - first, count)})
        for before, after in pairwise(seen):
            assert len(before & after) == 4
    assert frames_in((0, None), 3.0, 8, 8) == 8  # a short file is looked at no less
    assert frames_in((4, None), 4.1, 8, 8) == 1
