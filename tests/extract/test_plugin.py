from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regionvlp.errors import ConfigError, NothingDoneError
from regionvlp.extract import plugin
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.plugin import load_plugin
from regionvlp.extract.settings import DetectorSettings, ExtractConfig
from regionvlp.shards import open_shards
from regionvlp.shards.interop.plain import frame_regions
from regionvlp.shards.vocabulary import read_vocabulary


def settings(factory: str) -> ExtractConfig:
    return ExtractConfig.model_validate(
        {"detector": {"name": factory}, "video": {"frames": 2, "workers": 1}, "shards": {"dtype": "float32"}}
    )


@pytest.fixture
def clips(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    for seed in (1, 2):
        make_clip(tmp_path / "clips" / f"{seed}.mp4", seed)
    return tmp_path / "clips"


def test_the_documented_example_works(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugin.__doc__ is not None
    example = textwrap.dedent(plugin.__doc__.split("::\n\n")[-1])
    (tmp_path / "documented.py").write_text(example)
    assert len(example.splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    extract_folder(clips, tmp_path / "out", settings("documented:Halves"))
    reader = open_shards(tmp_path / "out")
    regions = reader["1.mp4"]
    assert reader.manifest.feature_width == 3
    assert reader.manifest.detector["plugin"] == {"detector": "halves", "version": 1}
    assert regions.num_regions.tolist() == [2, 2]
    assert regions.boxes[0, :2].tolist() == [[0, 0, 40, 64], [40, 0, 80, 64]]
    names = read_vocabulary(tmp_path / "out")
    assert names is not None
    assert [names.object_name(i) for i in regions.class_ids[0, :2]] == ["left half", "right half"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", r"own_detectors:raises raises KeyError: no 'no such layer' \(own_detectors.py, line \d+\)"),
        ("nan", "gives features that are not finite"),
        ("outside", r"gives a box outside the picture: \[500.0, 500.0, 900.0, 900.0\] in 80x64 pixels"),
        ("inside_out", "gives a box with x2 < x1"),
        ("wide", r"gives features of shape \[2, 4\], not \[2, 3\]"),
        ("words", "gives scores of .*, which are no numbers"),
        ("classless", "gives class_ids such as 7, and there are 2 names"),
        ("one_short", r"gives boxes of shape \[2, 4\], not \[1, 4\]"),
        ("unlikely", "gives scores beyond 0 to 1"),
        ("typo", "gives 'box' for a frame; did you mean 'boxes'?|gives no boxes for a frame"),
    ],
)
def test_what_a_bad_detector_gives_is_a_row_a_video(clips: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(NothingDoneError):
        extract_folder(clips, tmp_path / "out", settings(f"own_detectors:{name}"))
    failures = open_shards(tmp_path / "out").failures
    assert [(row.video_id, row.stage, row.reason) for row in failures] == [
        (f"{i}.mp4", "detect", "detector-error") for i in (1, 2)
    ]
    for row in failures:
        assert re.search(words, row.message), row.message
        assert "\n" not in row.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Broken", "raises RuntimeError: no weights"),
        ("Nameless", "names of own_detectors:Nameless is empty"),
        ("Headless", "has no feature_width, identity, detect"),
        ("missing", "own_detectors:missing"),
        ("a_number", "is a int"),
    ],
)
def test_a_detector_that_never_works_is_one_line_before_anything_is_written(
    clips: Path, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        extract_folder(clips, tmp_path / "out", settings(f"own_detectors:{name}"))
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(caught.value)


def test_other_dtypes_are_cast_and_boxes_clipped(clips: Path, tmp_path: Path) -> None:
    extract_folder(clips, tmp_path / "out", settings("own_detectors:ints"))
    regions = open_shards(tmp_path / "out")["2.mp4"]
    assert regions.boxes[0, 0].tolist() == [0, 0, 40, 64]
    assert regions.features[0, :2].tolist() == [[1, 1, 1]] * 2


def test_frames_without_regions_and_factories_that_read_settings(clips: Path, tmp_path: Path) -> None:
    extract_folder(clips, tmp_path / "out", settings("own_detectors:nothing"))
    assert open_shards(tmp_path / "out")["1.mp4"].num_regions.tolist() == [0, 0]
    made = load_plugin("own_detectors:with_settings", DetectorSettings(regions=5))
    assert made.identity()["plugin"]["regions"] == 5


def test_a_name_with_a_colon_is_a_factory_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DetectorSettings(name="a.b:c").factory == "a.b:c"
    assert DetectorSettings(name="toy").factory is None
    (tmp_path / "a:c").touch()
    assert DetectorSettings(name="a:c").factory is None


def test_the_best_regions_are_kept_best_first() -> None:
    scores = np.array([0.2, 0.9, 0.5])
    found = {"boxes": np.array([[i, i, i + 1, i + 1] for i in range(3)]), "scores": scores, "class_ids": [0, 1, 2]}
    regions = frame_regions(found, (10, 10), width=0, most=2, classes=3)
    assert regions.scores.tolist() == pytest.approx([0.9, 0.5])
    assert regions.boxes[:, 0].tolist() == [1, 2]
    assert regions.attribute_ids.tolist() == [-1, -1]
    assert regions.features.shape == (2, 1)
