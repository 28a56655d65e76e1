"""LSMDC: fabricated files in both public layouts; the real ones may not be handed on."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from regionvlp.data.captions import kind_of, load_captions, resolve_videos
from regionvlp.data.datasets import lsmdc
from regionvlp.errors import InputError

ROWS = [
    ("0001_American_Beauty_00.00.51.926-00.00.54.129", 'SOMEONE says "no'),  # one mark alone: quoting is off
    ("1003_How_to_Lose_00.01.00.000-00.01.02.500", "SOMEONE leaves."),
]
TEST, TRAIN = "LSMDC16_challenge_1000_publictect.csv", "LSMDC16_annos_training.csv"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lsmdc.ROWS, "test", 2)
    monkeypatch.setitem(lsmdc.ROWS, "train", 3)


def pairs(path: Path, **how: object) -> list[tuple[str, str]]:
    return [(one.video_id, one.caption) for one in load_captions(path, **how)]  # type: ignore[arg-type]


def table(rows: list[tuple[str, str]], end: str = "\n") -> str:
    times = "\t".join(["00.00.51.926", "00.00.54.129"] * 2)
    return end.join(f"{clip}\t{times}\t{sentence}" for clip, sentence in rows) + end


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_the_release_is_read_without_quoting(tmp_path: Path, end: str) -> None:
    (tmp_path / TEST).write_bytes(table(ROWS, end).encode())
    assert kind_of(tmp_path) == kind_of(tmp_path / TEST) == "lsmdc"
    assert pairs(tmp_path, split="test") == pairs(tmp_path / TEST) == ROWS


def test_frozens_folder_says_the_same(tmp_path: Path) -> None:
    lists = tmp_path / "structured-symlinks"
    lists.mkdir()
    (lists / "test_list.txt").write_text("\n".join(clip for clip, _ in ROWS))
    (lists / "raw-captions.pkl").write_bytes(pickle.dumps({clip: [text.split()] for clip, text in ROWS}))
    assert pairs(tmp_path, format="lsmdc", split="test") == ROWS


def test_clips_are_found_in_folders_of_films_and_flat(tmp_path: Path) -> None:
    (tmp_path / TEST).write_text(table(ROWS))
    captions = load_captions(tmp_path, split="test")
    for ids in ([f"{clip}.avi" for clip, _ in ROWS], [f"{clip.rpartition('_')[0]}/{clip}.avi" for clip, _ in ROWS]):
        assert resolve_videos(captions, ids).video_ids.to_pylist() == ids


def test_a_clip_may_have_two_sentences_to_train_on_and_none_to_test_on(tmp_path: Path) -> None:
    rows = [*ROWS, (ROWS[0][0], "SOMEONE smiles.")]
    (tmp_path / TRAIN).write_text(table(rows))
    assert pairs(tmp_path, split="train", training=True) == rows
    (tmp_path / TEST).write_text(table([ROWS[0], ROWS[0]]))
    with pytest.raises(InputError, match="names 1 different clips in 2 rows, 2 expected"):
        load_captions(tmp_path, split="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(ROWS[:1]), "names 1 different clips in 1 rows, 2 expected"),
        (table(ROWS).replace("\t", ","), "line 1 has 1 columns, 6 expected"),
        (table([*ROWS[:1], ("x", "")]), "line 2 lacks its clip or its sentence"),
    ],
)
def test_damage_is_said_in_a_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / TEST).write_text(content)
    with pytest.raises(InputError, match=message):
        load_captions(tmp_path, split="test")


def test_what_is_missing_or_does_not_apply_is_said(tmp_path: Path) -> None:
    (tmp_path / TEST).write_text(table(ROWS))
    with pytest.raises(InputError, match="no val part of LSMDC below"):
        load_captions(tmp_path, split="val")
    with pytest.raises(InputError, match="which part of LSMDC to train on is not said"):
        load_captions(tmp_path, training=True)
    with pytest.raises(InputError, match="'queries' does not apply"):
        load_captions(tmp_path, queries="first")
