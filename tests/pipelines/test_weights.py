"""``regionvlp weights`` as a user types it: what it prints, its JSON, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regionvlp.config import load_config
from regionvlp.extract.detector.config import FAMILIES, DetectorConfig
from regionvlp.extract.detector.random_weights import random_state
from regionvlp.extract.detector.registry import bundled_dir
from regionvlp.pipelines.cli import run

TOY = bundled_dir("toy")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGIONVLP_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """A small detector of family ``caffe`` as a bare PyTorch file."""
    sizes = {"backbone": {"blocks": [1, 1, 1, 1], "stem": 8, "bottleneck": 4, "channels": 16}, "rpn": {"width": 16}}
    config = load_config(
        DetectorConfig, FAMILIES["caffe"].model_dump(), sizes, {"head": {"classes": 5, "attributes": 3}}
    )
    state = {name: torch.from_numpy(value) for name, value in random_state(config, seed=1).items()}
    torch.save({"model": state}, tmp_path / "small.pth")
    return tmp_path / "small.pth"


def test_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "list"]) == 0
    said = capsys.readouterr().out
    for part in ("vg-caffe", "vg-hub", "maxnms", "Apache-2.0", "regionvlp weights fetch vg-hub", str(folder)):
        assert part in said
    assert run(["weights", "list", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in report["detectors"]}
    assert report["folder"] == str(folder)
    assert [name for name, row in rows.items() if row["usable"]] == ["toy"]
    assert {name: row["fetched"] for name, row in rows.items() if row["fetched"] != "by hand"} == {
        "toy": "bundled", "vg-hub": "hub", "vg-caffe-r152": "no", "vg-d2-x152": "no",
    }  # fmt: skip
    assert all(row["usable"] or row["hint"] for row in rows.values())


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "info", "toy", "--json", str(tmp_path / "toy.json")]) == 0
    said = capsys.readouterr().out
    described = json.loads((tmp_path / "toy.json").read_text())
    assert (described["family"], described["classes"], described["attributes"]) == ("caffe", 8, 32)
    assert described["feature_width"] == 256
    assert described["file_bytes"] == (TOY / "model.safetensors").stat().st_size
    assert described["weights_sha256"] in said
    assert sorted(described["vocabularies"]) == ["attributes", "objects"]


def test_convert_and_fetch(small_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, out = tmp_path / "classes.txt", tmp_path / "out"
    objects.write_text("cat\ndog\ncar\ncup\nsky\n")
    assert run(["weights", "convert", str(small_file), "--out", str(out), f"--objects={objects}", "--json", "-"]) == 0
    converted = json.loads(capsys.readouterr().out)
    assert (converted["name"], converted["depth"], sorted(converted["vocabularies"])) == ("out", 14, ["objects"])
    assert run(["weights", "info", str(out), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == converted
    for source in (["--from", str(small_file)], []):
        assert run(["weights", "fetch", "vg-caffe", *source]) == 0
        said = capsys.readouterr().out
        assert "licence: " in said
        assert str(folder / "vg-caffe" / "model.safetensors") in said
        assert converted["weights_sha256"] in said
    assert "it is already here" in said
    assert run(["weights", "list"]) == 0
    assert str(folder / "vg-caffe") in capsys.readouterr().out
    assert run(["weights", "fetch", "vg-hub", "--from", str(small_file)]) == 2
    said = capsys.readouterr().err
    assert "holds weights of family 'caffe', but vg-hub says 'maxnms'" in said
    assert said.count("\n") == 1
    assert not (folder / "vg-hub").exists()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["info", "vg-caffe"], "no weights for detector 'vg-caffe'", "--detector toy"),
        (["info", "{tmp}/nowhere.pth"], "nowhere.pth", "check the path"),
        (["info", "{tmp}/web.pth"], "web.pth", "get it again"),
        (["fetch", "vg-cafe"], "vg-cafe", "did you mean 'vg-caffe'?"),
        (["fetch", "vg-caffe"], "by name", "--from"),
        (["fetch", "vg-caffe", "--from", "{tmp}/nowhere.pth"], "nowhere.pth", "check the path"),
        (["fetch", "vg-caffe", "--from", "http://127.0.0.1:9/w.pth"], "127.0.0.1:9", "network"),
        (["fetch", "vg-hub"], "HF_HUB_OFFLINE", "--from"),
        (["fetch", "vg-d2-x152"], "grouped", "weights list"),
        (["fetch", "toy"], "comes with the package", "--detector toy"),
        (["convert", "{tmp}/web.pth", "--out", "{tmp}"], "exists already", "another folder"),
        (["convert", "{tmp}/web.pth", "--out", "{tmp}/new"], "web.pth", "get it again"),
        (["convert", "{tmp}/web.pkl", "--out", "{tmp}/new"], "web.pkl", "get it again"),
        (["convert", "{tmp}/web.pth"], "--out", "--help"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str], message: str, hint: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("pth", "pkl"):
        (tmp_path / f"web.{suffix}").write_text("<html>sign in</html>")
    before = sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    assert run(["weights", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert message in said
    assert hint in said
    assert sorted(str(path) for path in tmp_path.rglob("*") if path.is_file()) == before
