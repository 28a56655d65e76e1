"""The golden cases are found, and nothing among them is overlooked."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from . import discovery


@pytest.mark.parametrize("folder", discovery.KINDS)
def test_every_file_is_of_a_known_kind(folder: str) -> None:
    unknown = [stem for stem in discovery.stems(folder) if discovery.kind_of(folder, stem) is None]
    assert not unknown, f"cases of no known kind in {discovery.root() / folder}: {unknown}"


@pytest.mark.parametrize("folder", discovery.KINDS)
def test_every_kind_has_its_test(folder: str) -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], f"{__package__}."):
        if module.name.rpartition(".")[2].startswith("test_"):
            importlib.import_module(module.name)
    without = {(folder, kind) for kind in discovery.KINDS[folder]} - discovery.TESTED
    waiting = {case for case in discovery.WAITING if case[0] == folder}
    assert not without - waiting, f"no test of {folder} asks for {sorted(without - waiting)}"
    assert not waiting - without, f"these wait no longer: {sorted(waiting - without)}"


def test_the_environment_decides_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    folder.mkdir()
    for name in ("caffe_other.npz", "caffe_other.weights.safetensors", "README.md", "stranger.npz"):
        (folder / name).touch()
    monkeypatch.setenv("REGIONVLP_FIXTURES", str(tmp_path))
    assert discovery.stems("detector") == ["caffe_other", "stranger"]
    assert [parameter.id for parameter in discovery.cases("detector", "caffe_")] == ["caffe_other"]
    assert discovery.kind_of("detector", "stranger") is None


def test_an_absent_folder_holds_no_cases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGIONVLP_FIXTURES", str(tmp_path / "nowhere"))
    assert discovery.cases("detector", "caffe_") == []


def test_the_longest_prefix_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(discovery.KINDS, "detector", ("enc_", "enc_full"))
    assert discovery.kind_of("detector", "enc_full_f2") == "enc_full"
    assert discovery.kind_of("detector", "enc_f1") == "enc_"
