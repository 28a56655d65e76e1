"""The commands as a user types them: exit codes, one-line errors, JSON, and the demo's folder."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import regionvlp
from regionvlp.pipelines.cli import run
from regionvlp.pipelines.toy import demo

MakeClip = Callable[..., Path]


@pytest.fixture
def videos(tmp_path: Path, make_clip: MakeClip) -> Path:
    for i in range(2):
        make_clip(tmp_path / "videos" / f"{i}.mp4", seed=i)
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"nothing")
    return tmp_path / "videos"


def extract(videos: Path, out: Path, *more: str) -> int:
    return run(["extract", "--videos", str(videos), "--out", str(out), "--detector", "toy", "--frames", "2", *more])


def test_extract_status_verify(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert extract(videos, out, "--json", str(tmp_path / "r.json")) == 0
    said = capsys.readouterr().out
    assert "3 videos" in said
    assert "1 failed" in said
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["videos"], report["done"], report["failed"], report["frames"]) == (3, 2, 1, 4)

    assert extract(videos, out) == 0
    assert "nothing left to do" in capsys.readouterr().out

    assert run(["status", str(out), "--json", "-"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert {key: status[key] for key in ("videos", "done", "failed", "frames")} == {
        "videos": 3, "done": 2, "failed": 1, "frames": 4,
    }  # fmt: skip
    assert sum(status["failures"].values()) == 1
    assert run(["status", str(out), "--failures", "--json", "-"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["failed_videos"][0]["video_id"] == "bad.mp4"
    assert "bad.mp4: " in told.err

    assert run(["shards", "inspect", str(out), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 2
    assert run(["shards", "verify", str(out)]) == 0
    capsys.readouterr()
    plan = (out / "plan.parquet").read_bytes()
    (out / "plan.parquet").unlink()
    assert run(["shards", "verify", str(out)]) == 1
    assert "plan.parquet: missing" in capsys.readouterr().out
    (out / "plan.parquet").write_bytes(plan)
    shard = next(out.glob("shard-*.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert run(["shards", "verify", str(out)]) == 1
    assert "fault: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--videos", "{tmp}/nowhere"], "nowhere", ""),
        (["--videos", "{tmp}/empty"], "no video", ""),
        (["--detector", "toyy"], "toyy", "toy"),
        (["--detector", "{tmp}/nowhere.pth"], "nowhere.pth", ""),
        (["--device", "abacus"], "abacus", "cpu"),
        (["--frames", "0"], "video.frames = 0", "correct"),
        (["--frames", "two"], "'two'", "--help"),
        (["--set", "video.frmaes=3"], "video.frmaes", "did you mean 'frames'?"),
        (["--set", "detector.selection=best"], "best", ""),
        (["--config", "{tmp}/nowhere.yaml"], "nowhere.yaml", ""),
        (["--format", "zip"], "zip", ""),
        (["--decoder", "mplayer"], "mplayer", ""),
        (["--out", "{tmp}/file"], "file", "--out"),
        (["--out", "{tmp}/full"], "not empty", "--out"),
        (["--colour", "red"], "--colour", "--help"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str], message: str, hint: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    assert extract(videos, tmp_path / "out", *filled) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert message in said
    assert hint in said
    assert "Traceback" not in said
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_auto_without_weights_says_where_to_get_them(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGIONVLP_WEIGHTS", str(tmp_path / "weights"))
    assert run(["extract", "--videos", str(videos), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--detector toy" in said
    assert str(tmp_path / "weights") in said
    assert not (tmp_path / "out").exists()


def test_status_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["status"], ["shards", "inspect"], ["shards", "verify"]):
        assert run([*arguments, str(tmp_path)]) == 2
        assert "not a shard folder" in capsys.readouterr().err


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["extrat"]) == 2
    assert "did you mean 'extract'?" in capsys.readouterr().err


def test_all_failed_is_exit_code_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"nothing")
    assert extract(tmp_path / "videos", tmp_path / "out") == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_doctor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(["doctor", "--json", str(tmp_path / "d.json")])
    findings = {f["name"]: f for f in json.loads((tmp_path / "d.json").read_text())["findings"]}
    assert code == 0
    assert findings["torch"]["mark"] == "ok"
    assert findings["reader pyav"]["mark"] == "ok"
    assert findings["detector toy"]["mark"] == "ok"
    assert {"detector vg-caffe", "detector vg-hub"} <= set(findings)
    for finding in findings.values():
        assert finding["mark"] == "ok" or finding["mend"], f"{finding['name']} does not say how to mend it"
    assert "torch" in capsys.readouterr().out


def test_shards_draw(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(videos, tmp_path / "out") == 0
    page = tmp_path / "page.html"
    draw = ["shards", "draw", str(tmp_path / "out"), "--out", str(page), "--videos"]
    assert run([*draw, str(videos), "--detector", "toy"]) == 0
    html = page.read_text()
    assert html.count("<section>") == 2
    assert 'class="box"' in html
    assert any(f">{name} " in html for name in ("circle", "square", "triangle", "star", "ring", "cross", "bar"))
    assert run([*draw, str(tmp_path)]) == 2
    assert "cannot draw" in capsys.readouterr().err


def test_shards_draw_from_where_the_source_says(
    videos: Path, tmp_path: Path, make_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = tmp_path / "segments.csv"
    segments.write_text("video,start,end\n0.mp4,0,0.1\n1,0,0.1\n")
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        tar.add(videos / "0.mp4", "first.mp4")
    page = tmp_path / "page.html"
    for given, count in ([str(segments), "--root", str(videos)], 2), ([str(tmp_path / "clips.tar")], 1):
        out = tmp_path / f"out-{count}"
        assert run(["extract", "--videos", *given, "--out", str(out), "--detector", "toy", "--frames", "2"]) == 0
        page.unlink(missing_ok=True)
        assert run(["shards", "draw", str(out), "--out", str(page), "--videos", *given]) == 0
        assert page.read_text().count("<section>") == count
    assert run(["shards", "export-npz", str(tmp_path / "out-1"), str(tmp_path / "npz")]) == 0
    assert run(["shards", "import-npz", str(tmp_path / "npz"), str(tmp_path / "imported")]) == 0
    shutil.copy(videos / "0.mp4", videos / "first.mp4")
    assert run(["shards", "draw", str(tmp_path / "imported"), "--out", str(page), "--videos", str(videos)]) == 0
    assert page.read_text().count("<section>") == 1

    make_clip(videos / "0.mp4", seed=5, frames=2)
    page.unlink()
    for refused in (
        ["--videos", str(tmp_path / "clips.tar")],
        ["--videos", str(segments), "--root", str(videos), "--out", str(tmp_path)],
        ["--videos", str(segments), "--root", str(tmp_path / "nowhere")],
    ):
        assert run(["shards", "draw", str(tmp_path / "out-2"), "--out", str(page), *refused]) == 2
        assert capsys.readouterr().err.count("error:") == 1
        assert not page.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "5/3"], "there is no slot 5 of 3"),
        (["--task", "x"], "cannot read '--task x'"),
        (["--address", "auto"], "--address is for Ray's workers"),
        (["--bogus"], "--out'?). Hint: see"),
    ],
)
def test_extract_refuses_in_one_line(
    videos: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(videos, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "QUICK", demo.Scale(train=64, test=8, steps=2))
    out = tmp_path / "demo"
    assert run(["demo", "--quick", "--out", str(out)]) == 0
    assert len(list((out / "videos").rglob("*.mp4"))) == 72
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["queries"] == 8
    assert metrics["chance"]["R1"] == pytest.approx(100 / 8)
    for part in (metrics["t2v"], metrics["v2t"], metrics["global_only"]["t2v"]):
        assert {"R1", "R5", "R10", "MedR", "MeanR"} <= set(part)
    assert 0 <= metrics["grounding"]["accuracy"] <= metrics["grounding"]["ceiling"] <= 100
    page = (out / "report.html").read_text()
    assert page.count("<article") >= 6
    assert "http" not in page
    assert regionvlp.load_checkpoint(out / "checkpoint").config.loss.use_local
    assert run(["shards", "verify", str(out / "shards")]) == 0

    finished = {
        path: path.stat().st_mtime_ns for kind in ("*.mp4", "*.h5", "*.safetensors") for path in out.rglob(kind)
    }
    assert run(["demo", "--quick", "--out", str(out)]) == 0
    again = {path: path.stat().st_mtime_ns for path in finished if path.parent.name != "checkpoint"}
    assert again == {path: finished[path] for path in again}
    assert json.loads((out / "metrics.json").read_text()) == metrics
    capsys.readouterr()
    assert run(["demo", "--out", str(out)]) == 2
    assert "another size" in capsys.readouterr().err
