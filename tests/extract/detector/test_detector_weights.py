"""Which files load, and what is said about those that do not."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from regionvlp.errors import ConfigError, RegionVLPError, WeightsError
from regionvlp.extract.detector import FAMILIES, RegionDetector, weights_status

State = dict[str, torch.Tensor]
MakeState = Callable[..., State]
ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"


def load(path: Path, **settings: Any) -> RegionDetector:
    return RegionDetector.load(str(path), device="cpu", **settings)


def refusal(path: Path, kind: type[RegionVLPError] = WeightsError, **settings: Any) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(kind) as caught:
        load(path, **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".pt"])
def test_a_bare_file_shows_its_family_and_sizes(
    family: str, suffix: str, native_state: MakeState, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(native_state(family), path)
    else:
        torch.save(native_state(family), path)
    config = load(path).config
    assert config.family == family
    assert config.backbone.blocks == (1, 2, 1, 1)
    assert (config.backbone.stem, config.backbone.bottleneck, config.feature_width) == (8, 4, 128)
    assert (config.rpn.width, config.head.classes, config.head.attributes) == (24, 20, 7)
    assert (config.head.embedding, config.head.hidden) == (12, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_attributes_the_objectness_tells_the_family(
    family: str, native_state: MakeState, tmp_path: Path, picture: Callable[..., Any]
) -> None:
    parts = ("attr", "cls_emb")
    state = {name: value for name, value in native_state(family).items() if not any(part in name for part in parts)}
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": state}, path)
    detector = load(path, overrides={"input": {"short_side": 96, "long_side": 160}}, proposals=20)
    assert (detector.config.family, detector.config.head.attributes) == (family, 0)
    found = detector.detect([picture()])[0]
    assert (found.attribute_ids == -1).all()
    assert (found.attribute_scores == 0).all()


def test_counters_and_half_precision_do_not_matter(native_state: MakeState, tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.pth", tmp_path / "other.pth"
    state = {name: value.half().float() for name, value in native_state().items()}
    torch.save(state, plain)
    counters = {n.replace("running_var", "num_batches_tracked"): torch.tensor(5) for n in state if "running_var" in n}
    torch.save({name: value.half() for name, value in state.items()} | counters, other)
    assert load(plain).identity()["weights"] == load(other).identity()["weights"]


def test_anchors_absent_are_computed_and_different_ones_used(
    native_state: MakeState, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.pth"
    computed = [-38, -16, 53, 31]
    torch.save(native_state(), path)
    assert load(path).anchors[0].tolist() == computed
    same = torch.from_numpy(load(path).anchors.numpy().copy())
    with caplog.at_level(logging.WARNING):
        torch.save(native_state() | {ANCHORS: same}, path)
        assert load(path).anchors[0].tolist() == computed
        assert not caplog.records
        torch.save(native_state() | {ANCHORS: same / 16}, path)
        assert load(path).anchors[0].tolist() == [side / 16 for side in computed]
    assert "anchors" in caplog.text


def test_a_saved_pixel_mean_is_used(native_state: MakeState, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    mean = {"pixel_mean": torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    torch.save(native_state("d2") | mean, path)
    assert load(path).config.input.mean_bgr == (1, 2, 3)
    torch.save(native_state("d2") | mean | {"pixel_std": torch.full((3, 1, 1), 57.0)}, path)
    assert "57" in refusal(path)


def test_a_folder_may_name_more(native_state: MakeState, tmp_path: Path) -> None:
    save_file(native_state(), tmp_path / "model.safetensors")
    torch.save(native_state("d2"), tmp_path / "ignored.pth")
    settings = "family: caffe\nname: mine\nrpn: {proposals: 12}\nselection: {regions: 9, rule: suppressed}\n"
    (tmp_path / "detector.yaml").write_text(settings)
    (tmp_path / "objects.txt").write_text("\n".join(["cat,kitten", *map(str, range(19))]))
    detector = load(tmp_path, proposals=20)
    assert detector.config.name == "mine"
    assert (detector.config.rpn.proposals, detector.config.selection.regions) == (20, 9)
    assert detector.object_names is not None
    assert (detector.object_names[0], len(detector.object_names), detector.attribute_names) == ("cat,kitten", 20, None)
    (tmp_path / "attributes.txt").write_text("red\nblue\n")
    assert "names 2 classes, but the weights have 7" in refusal(tmp_path)


def test_settings_are_checked(native_state: MakeState, tmp_path: Path) -> None:
    save_file(native_state(), tmp_path / "model.safetensors")
    settings = tmp_path / "detector.yaml"
    settings.write_text("family: caffe\nrpn: {propsals: 12}\n")
    assert "did you mean 'proposals'" in refusal(tmp_path, ConfigError)
    settings.write_text("family: cafe\n")
    assert "did you mean 'caffe'" in refusal(tmp_path)
    settings.write_text("family: d2\n")
    assert "weights of family 'caffe'" in refusal(tmp_path)
    settings.write_text("family: caffe\nhead: {classes: 30}\n")
    assert "cls_score.weight [21, 128] instead of [31, 128]" in refusal(tmp_path)
    settings.write_text("family: [caffe]\n")
    assert "not a name" in refusal(tmp_path, ConfigError)
    settings.write_text("family: caffe\nrandom_seed: -1\n")
    assert "not a whole number" in refusal(tmp_path, ConfigError)
    assert "known detector family" in _without_weights(tmp_path, "random_seed: 1\n")
    settings.write_text("family: caffe\n")
    assert "regions = 0" in refusal(tmp_path, ConfigError, regions=0)
    assert "selection.rule" in refusal(tmp_path, ConfigError, selection="best")


def _without_weights(folder: Path, settings: str) -> str:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "detector.yaml").write_text(settings)
    return refusal(inner)


def test_wrong_contents(native_state: MakeState, tmp_path: Path) -> None:
    path, state = tmp_path / "weights.pth", native_state()
    bias = "roi_heads.box_predictor.bbox_pred.bias"
    torch.save({name: value for name, value in state.items() if name != bias}, path)
    assert f"is not a whole detector of family 'caffe': tensors 1 missing ({bias})" in refusal(path)
    torch.save(state | {"roi_heads.mask_head.weight": torch.zeros(3)}, path)
    assert "tensors 1 unexpected (roi_heads.mask_head.weight)" in refusal(path)
    torch.save(state | {bias: torch.zeros(80)}, path)
    assert f"tensors 1 of another shape ({bias} [80] instead of [84])" in refusal(path)
    torch.save(state | {bias: torch.full((84,), torch.nan)}, path)
    assert f"{bias} holds values that are not numbers" in refusal(path)
    torch.save(state | {"roi_heads.res5_bn.weight": torch.zeros(3)}, path)
    assert "ResNet-152" in refusal(path)
    torch.save({"layer1.0.conv1.weight": torch.zeros(4, 4, 1, 1)}, path)
    assert "no known detector family" in refusal(path)
    torch.save([1, 2], path)
    assert "not a state dict" in refusal(path)


class Malicious:
    """Runs a command when it is unpickled, unless the reader refuses."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


def test_code_in_a_pickle_is_not_run(native_state: MakeState, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for protocol in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        path = tmp_path / "weights.pth"
        protocol(dict(native_state()) | {"extra": Malicious(victim)}, path)
        assert "refused" in refusal(path)
        assert not victim.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files(suffix: str, native_state: MakeState, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(native_state(), path)
    else:
        save_file(native_state(), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        assert str(path) in refusal(path)


def test_names_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    assert "did you mean 'toy'" in refusal(Path("toyy"))
    assert "check the path" in refusal(tmp_path / "missing.pth")
    assert "holds no weights" in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "is no checkpoint file" in refusal(tmp_path / "notes.txt")
    (tmp_path / "a.pth").touch()
    (tmp_path / "b.pth").touch()
    assert "several weights files: a.pth, b.pth" in refusal(tmp_path)


def test_vg_caffe_is_found_in_the_weights_folder(
    native_state: MakeState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIONVLP_WEIGHTS", str(tmp_path / "weights"))
    for name in ("auto", "vg-caffe"):
        message = refusal(Path(name))
        assert str(tmp_path / "weights") in message
        assert "--detector toy" in message
    usable = [(row["name"], row["usable"]) for row in weights_status()]
    assert usable == [("toy", True), ("vg-caffe", False), ("vg-hub", False)]
    (tmp_path / "weights" / "vg-caffe").mkdir(parents=True)
    assert [(row["usable"], "holds no weights" in row["hint"]) for row in weights_status()[1:2]] == [(False, True)]
    (tmp_path / "weights" / "vg-caffe").rmdir()
    for name in ("bua-caffe-frcn-r101_with_attributes.pth", "vg-caffe.pth", "vg-caffe/anything.pth"):
        path = tmp_path / "weights" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(native_state(), path)
        assert weights_status()[1]["where"] == str(path.parent if "/" in name else path)
        assert RegionDetector.load("auto", device="cpu").config.family == "caffe"
    assert RegionDetector.load("auto", device="cpu", weights_dir=tmp_path / "weights").feature_width == 128


def test_looking_for_weights_does_not_import_torch() -> None:
    code = "import sys, regionvlp.extract.detector as d; d.weights_status(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
