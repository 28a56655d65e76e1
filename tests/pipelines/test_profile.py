"""``regionvlp profile`` as a user types it: no weights, no downloads, one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regionvlp.pipelines.cli import run


def profile(*arguments: str) -> int:
    return run(["profile", *arguments])


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert profile(*arguments, "--json", "-") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_papers_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    found = read(capsys, "--config", "demovlp_webvid_cc3m.yaml", "--runs", "4")
    parts = {part["name"]: part for part in found["parts"]}
    for name in ("video encoder", "text encoder", "global similarity"):
        assert parts[name]["flops"] == parts[name]["counted"]
    assert parts["text encoder"]["flops"] == 8_717_107_200
    assert parts["region-word alignment"]["flops"] == 8 * 30 * 99 * 256
    assert parts["region-word alignment"]["counted"] < parts["region-word alignment"]["flops"]
    assert all(part["flops"] == part["counted"] for part in found["detector_parts"])
    whole, *pieces = found["detector_parts"]
    assert whole["flops"] == sum(piece["flops"] for piece in pieces)

    rows = {row["component"]: row for row in found["table_3"]}
    assert rows["video"]["demovlp_flops"] == pytest.approx(rows["video"]["counted_linear_flops"], abs=0.05)
    assert rows["video"]["demovlp_parameters"] == pytest.approx(rows["video"]["counted_parameters"], abs=0.1)
    assert rows["detector"]["counted_flops"] > 30 * rows["detector"]["demovlp_flops"]

    spent = found["features"]
    assert spent["extraction_flops"] == 8 * whole["flops"]
    assert [(row["runs"], row["epochs"]) for row in spent["rows"]] == [(1, 1), (1, 50), (4, 50)]
    for row in spent["rows"]:
        visits = row["runs"] * row["epochs"]
        assert row["times_training"] == pytest.approx(spent["visits_to_even"] / visits)


def test_what_a_reader_sees(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert profile("--config", "demo.yaml", "--epochs", "1", "--stored-frames", "1") == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    text = " ".join(said.split())
    for part in (
        "4 frames of 6 regions, a caption of up to 32 tokens",
        "detector toy",
        "without the detector",
        "fit no configuration",
        "1 run of 1",
        "with 64 captions: a batch of 64, loss.negatives global",
    ):
        assert part in text
    assert "%" not in text


@pytest.mark.parametrize(("local", "name", "products"), [("filip", "FILIP", 2), ("taco", "TACo", 1)])
def test_other_local_losses_are_counted(
    local: str, name: str, products: int, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, part = read(capsys, "--config", "demo.yaml", "--set", f"loss.local={local}")["parts"]
    m, words, width = 4 * 6, 32 - 1, 64
    assert (part["name"], part["flops"]) == (name, products * 2 * m * words * width)
    # The means over the best cosines besides.
    assert part["counted"] == part["flops"] + 2 * (words + (m if local == "filip" else 0))


def test_whose_captions_a_video_is_compared_with(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "demo.yaml", "--set", "train.accumulate=2"]
    group = read(capsys, *arguments, "--set", "loss.negatives={group: 8}")["features"]
    part = read(capsys, *arguments)["features"]
    assert (group["captions_compared"], part["captions_compared"]) == (8, 32)
    assert group["training_flops_per_visit"] < part["training_flops_per_visit"]
    assert profile("--config", "demo.yaml", "--set", "train.accumulate=7") == 2
    assert "does not divide" in capsys.readouterr().err


def test_a_detector_of_another_width(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    found = read(capsys, "--config", "demo.yaml", "--detector", "vg-caffe")
    assert "detector vg-caffe gives 2048 features, the model reads 256" in caplog.text
    assert not any(part["name"].startswith(" ") for part in found["detector_parts"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config", "demo.yaml", "--set", "model.video.widht=3"], "did you mean 'width'"),
        (["--config", "demo.yaml", "--frame-size", "360"], "HEIGHTxWIDTH"),
        (["--config", "demo.yaml", "--detector", "vg-cafe"], "did you mean 'vg-caffe'"),
        (["--config", "demo.yaml", "--set", "model.video.feature_width=17"], "--detector"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_a_config_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("loss: {use_local: false}\nmodel: {text: {vocab_size: 100}}\n")
    found = read(capsys, "--config", str(tmp_path / "mine.yaml"), "--detector", "vg-hub", "--frame-size", "480x640")
    assert [part["name"] for part in found["parts"]] == ["video encoder", "text encoder", "global similarity"]
    assert (found["detector"], found["frame"]) == ("vg-hub", [600, 800])
