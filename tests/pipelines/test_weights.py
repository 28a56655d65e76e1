"""``regionvlp weights`` as a user types it: what it prints, its JSON, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regionvlp.extract.detector.registry import bundled_dir
from regionvlp.pipelines.cli import run

TOY = bundled_dir("toy")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGIONVLP_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    """The toy detector's tensors as a bare PyTorch file, which fit no named detector's anchors."""
    torch.save({"model": load_file(TOY / "model.safetensors")}, tmp_path / "toy.pth")
    return tmp_path / "toy.pth"


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


def test_convert_and_fetch(toy_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"--{kind}={TOY / kind}.txt" for kind in ("objects", "attributes")]
    # Nothing in the file shows the toy's nine anchors, so it is no public family; the settings beside it say more.
    assert run(["weights", "convert", str(toy_file), "--out", str(tmp_path / "out"), *names]) == 2
    assert "no known detector family" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(["weights", "fetch", "vg-caffe", "--from", str(toy_file)]) == 2
    said = capsys.readouterr()
    assert "licence: " in said.out
    assert "toy.pth: " in said.err
    assert said.err.count("\n") == 1
    assert not folder.exists()


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
