"""Sharing a model through a local stand-in of the hub: there and back, and every way to get it wrong."""

from __future__ import annotations

import getpass
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN, Hub, hub_serving
from huggingface_hub import constants

import regionvlp
from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.training.saving import SHARED

Edit = Callable[..., Path]
NAME = "hub:lab/tiny-model"


@pytest.fixture
def trained(recipe: Edit, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    assert run(["pretrain", "--config", str(recipe()), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in takes uploads the older way alone
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def same_weights(one: str | Path, other: str | Path) -> bool:
    first, second = (regionvlp.load_checkpoint(place).system.state_dict() for place in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_there_and_back(
    trained: Path, hub: Hub, tmp_path: Path, recipe: Edit, world: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(["push", str(trained), NAME, "--private", "--licence", "mit"]) == 0
    said = capsys.readouterr().out
    assert "the best of the run by t2v/R1" in said
    repository = hub.repositories["lab/tiny-model"]
    assert repository.private
    assert set(repository.commits[repository.branches["main"]]) == {*SHARED, "README.md", ".gitattributes"}

    opened = regionvlp.load_checkpoint(NAME)
    assert str(opened.shared) == NAME
    assert same_weights(NAME, trained)
    assert opened.detector == regionvlp.load_checkpoint(trained).detector

    # Wherever a checkpoint is named.
    figures = tmp_path / "metrics.json"
    given = ["--annotations", str(world / "videos/test.jsonl"), "--shards", str(world / "shards")]
    assert run(["eval", "csv", "--checkpoint", NAME, *given, "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["checkpoint"] == NAME
    assert run(["eval", "csv", "--checkpoint", NAME, *given]) == 0
    assert not (opened.path / "eval").exists()
    assert run(["finetune", "--config", str(recipe()), "--init", NAME, "--out", str(tmp_path / "fine")]) == 0
    assert yaml.safe_load((tmp_path / "fine/config.yaml").read_text())["init"] == NAME
    index = str(tmp_path / "index")
    assert run(["index", "--shards", str(world / "shards"), "--out", index, "--encoder", NAME]) == 0
    go_offline(monkeypatch)
    assert run(["search", index, "a red star"]) == 0


def test_nothing_of_this_machine_goes_along(trained: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "files"
    assert run(["push", str(trained), NAME, "--dry-run", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {*SHARED, "README.md"}
    for path in out.iterdir():
        content = path.read_bytes()
        for place in (tmp_path, world, Path.home(), Path.cwd()):
            assert f"{place}/".encode() not in content, path.name
        assert f"/{getpass.getuser()}/".encode() not in content
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["data"]["sources"][0]["captions"] == "train.jsonl"
    assert config["data"]["sources"][0]["shards"] == "shards"
    assert config["eval"]["source"] is None
    assert config["train"]["device"] == "auto"
    assert same_weights(out, trained)


def test_the_card(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "files"
    assert run(["push", str(trained), f"{NAME}@v1", "--licence", "mit", "--dry-run", str(out)]) == 0
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["license"] == "mit"
    assert values["datasets"] == ["train"]
    assert {"regionvlp", "demovlp"} <= set(values["tags"])
    best = json.loads((trained / "checkpoints/best.json").read_text())
    figures = {found["type"]: found["value"] for found in values["model-index"][0]["results"][0]["metrics"]}
    assert figures["t2v/R1"] == pytest.approx(best["value"], abs=1e-4)
    assert f'regionvlp.load_checkpoint("{NAME}@v1")' in text
    assert f"after {best['step']:,} steps: the best of the run" in text
    assert regionvlp.load_checkpoint(trained).detector["weights"] in text


def test_revisions_and_what_is_newer(trained: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["push", str(trained), NAME]) == 0
    steps = sorted((trained / "checkpoints").glob("step-*"))
    assert run(["push", str(steps[0]), NAME, "--revision", "first"]) == 0
    assert same_weights(f"{NAME}@first", steps[0])
    main = hub.repositories["lab/tiny-model"].branches["main"]
    assert same_weights(f"{NAME}@{main}", trained)
    # What a branch names now is asked each time; a cache that is whole serves where nobody can be asked.
    before = regionvlp.load_checkpoint(NAME).path
    other = steps[0] if regionvlp.load_checkpoint(trained).path != steps[0] else steps[-1]
    assert run(["push", str(other), NAME]) == 0
    after = regionvlp.load_checkpoint(NAME).path
    assert before != after
    go_offline(monkeypatch)
    assert regionvlp.load_checkpoint(NAME).path == after
    assert same_weights(f"{NAME}@first", steps[0])


def test_nothing_but_known_files_is_fetched(trained: Path, hub: Hub, tmp_path: Path) -> None:
    assert run(["push", str(trained), NAME]) == 0
    strange = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04.", "trainer_state.pt": b"\x80\x04."}
    hub.add("lab/tiny-model", strange)
    hub.requests.clear()
    folder = regionvlp.load_checkpoint(NAME).path
    assert {path.name for path in folder.iterdir()} == set(SHARED)
    fetched = {path.rpartition("/")[2] for _, path in hub.requests if "/resolve/" in path}
    assert fetched <= set(SHARED)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_opening_what_is_not_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(name: str) -> str:
        return refused(capsys, "eval", "csv", "--checkpoint", name)

    assert "there is no model lab/none" in opened("hub:lab/none")
    assert "names no repository" in opened("hub:nothing")
    hub.add("lab/bert", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."})
    said = opened("hub:lab/bert")
    assert "model.safetensors" in said
    assert "pickles are not opened" in said
    assert "no revision 'v9'" in opened("hub:lab/bert@v9")
    hub.add("lab/half", {"config.yaml": b"{}", "model.safetensors": b"", "tokenizer.json": b"{}"})
    assert "detector.json missing" in opened("hub:lab/half")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in opened("hub:lab/bert")
    go_offline(monkeypatch)
    said = opened("hub:lab/bert")
    assert "HF_HUB_OFFLINE" in said
    assert all(file in said for file in SHARED)


def test_pushing_what_cannot_be_pushed(
    trained: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pushed(place: Path | str, *more: str) -> str:
        return refused(capsys, "push", str(place), *(more or (NAME,)))

    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint" in pushed(tmp_path / "empty")
    assert "there is no checkpoint at" in pushed(tmp_path / "nowhere")
    assert "names no repository" in pushed(trained, "lab/tiny-model")
    assert "two branches" in pushed(trained, f"{NAME}@one", "--revision", "two")
    assert "on the hub already" in pushed(NAME)
    half = tmp_path / "half"
    shutil.copytree(regionvlp.load_checkpoint(trained).path, half)
    weights = (half / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot read" in pushed(half)
    (half / "detector.json").unlink()
    assert "no whole checkpoint: detector.json missing" in pushed(half)
    hub.add("lab/other", {"config.json": b"{}", "weights.bin": b""})
    assert "holds something else already" in pushed(trained, "hub:lab/other")
    assert set(hub.repositories) == {"lab/other"}
    monkeypatch.setenv("HF_TOKEN", "hf_somebody_else")
    assert "does not let this token write" in pushed(trained)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "hf auth login" in pushed(trained)
    go_offline(monkeypatch)
    assert "HF_HUB_OFFLINE" in pushed(trained)


@pytest.mark.parametrize("name", ["hub:", "hub:a", "hub:a/b/c", "hub:a/b@", "hub:a b/c", "hub:../x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="names no repository"):
        regionvlp.load_checkpoint(name)
