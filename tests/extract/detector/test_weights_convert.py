"""Files of every public kind become the same detector folder, and code in a file is never run."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from regionvlp.errors import InputError, RegionVLPError, WeightsError
from regionvlp.extract.detector import FAMILIES, RegionDetector
from regionvlp.extract.detector.catalogue import ENTRIES, VISUAL_GENOME
from regionvlp.extract.detector.convert import convert
from regionvlp.extract.detector.registry import SETTINGS_NAME, find_detector
from regionvlp.extract.detector.vocabulary import read_names
from regionvlp.extract.detector.weights import load_weights
from regionvlp.store.owner import this_host

State = dict[str, torch.Tensor]
MakeState = Callable[..., State]
OBJECTS, ATTRIBUTES = [f"thing {i}" for i in range(20)], [f"kind {i}" for i in range(7)]


def arrays_of(state: State) -> dict[str, np.ndarray[Any, Any]]:
    return {name: value.numpy() for name, value in state.items()}


def write(path: Path, state: State, protocol: int = 2) -> Path:
    """Writes ``state`` as the public code of the suffix does."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".pkl":
        content = {"model": arrays_of(state), "__author__": "someone", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save({"model": state, "iteration": 380000}, path)
    return path


def refusal(call: Callable[[], Any], kind: type[RegionVLPError] = WeightsError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".pkl"])
def test_every_kind_of_file_becomes_the_same_folder(suffix: str, native_state: MakeState, tmp_path: Path) -> None:
    source = write(tmp_path / f"weights{suffix}", native_state("maxnms"))
    plain = RegionDetector.load(str(source), device="cpu")
    described = convert(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [SETTINGS_NAME, "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", source.name]
    converted = RegionDetector.load(str(tmp_path / "out"), device="cpu")
    assert converted.config.model_dump(exclude={"name"}) == plain.config.model_dump(exclude={"name"})
    assert converted.identity()["weights"] == plain.identity()["weights"] == described["weights_sha256"]
    assert (described["family"], described["depth"], described["classes"]) == ("maxnms", 17, 20)
    assert described["origin"]["file"] == source.name


def test_settings_that_the_weights_do_not_show_are_kept(native_state: MakeState, tmp_path: Path) -> None:
    mean = {"pixel_mean": torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    convert(write(tmp_path / "d2.pth", native_state("d2") | mean), tmp_path / "d2")
    config = RegionDetector.load(str(tmp_path / "d2"), device="cpu").config
    assert (config.input.mean_bgr, config.name) == ((1, 2, 3), "d2")
    convert(write(tmp_path / "k36.pth", native_state()), tmp_path / "k36", entry=ENTRIES["vg-caffe-k36"])
    config = RegionDetector.load(str(tmp_path / "k36"), device="cpu").config
    assert (config.name, config.selection.min_boxes, config.selection.max_boxes) == ("vg-caffe-k36", 36, 36)


def test_the_hub_config_beside_the_weights_is_read(native_state: MakeState, tmp_path: Path) -> None:
    source = write(tmp_path / "pytorch_model.bin", native_state("maxnms"))
    (tmp_path / "config.yaml").write_text(
        "input: {MIN_SIZE_TEST: 800, max_size_test: 1333, format: BGR}\n"
        "model: {pixel_mean: [1.0, 2.0, 3.0], pixel_std: [1.0, 1.0, 1.0], max_pool: false}\n"
        "rpn: {post_nms_topk_test: 200, pre_nms_topk_test: 5000, nms_thresh: 0.6}\n"
        "roi_heads: {nms_thresh_test: 0.45, score_thresh_test: 0.2}\nmin_detections: 36\nmax_detections: 36\n"
    )
    convert(source, tmp_path / "out", entry=ENTRIES["vg-hub"])
    config = RegionDetector.load(str(tmp_path / "out"), device="cpu").config
    assert (config.input.short_side, config.input.long_side) == (800, 1333)
    assert (config.input.mean_bgr, config.input.resample) == ((1, 2, 3), "torch_float")
    assert (config.rpn.proposals, config.rpn.candidates, config.rpn.nms) == (200, 5000, 0.6)
    assert (config.selection.nms, config.selection.regions) == ((0.45,), 36)
    assert (config.backbone.pool_padding, config.backbone.pool_ceil) == (1, False)
    (tmp_path / "config.yaml").write_text("rpn: {}\nmodel: {pixel_std: [57.0, 57.0, 58.0]}\n")
    assert "57.0" in refusal(lambda: convert(source, tmp_path / "other"))
    # detectron2's own dump says other things under the same names.
    (tmp_path / "config.yaml").write_text("INPUT: {MIN_SIZE_TEST: 321}\nMODEL: {RPN: {NMS_THRESH: 0.1}}\n")
    convert(source, tmp_path / "other")
    assert RegionDetector.load(str(tmp_path / "other"), device="cpu").config.input.short_side == 600


def test_vocabularies_travel(native_state: MakeState, tmp_path: Path) -> None:
    source = write(tmp_path / "weights.pth", native_state())
    given = tmp_path / "given.txt"
    given.write_bytes("\r\n".join(OBJECTS).encode())
    (tmp_path / "attributes_vocab.txt").write_text("\n".join(ATTRIBUTES))
    described = convert(source, tmp_path / "out", objects=given)
    assert sorted(described["vocabularies"]) == ["attributes", "objects"]
    detector = RegionDetector.load(str(tmp_path / "out"), device="cpu")
    assert (detector.object_names, detector.attribute_names) == (OBJECTS, ATTRIBUTES)
    given.write_text("one\ntwo\n")
    assert "names 2 classes, but the weights have 20" in refusal(
        lambda: convert(source, tmp_path / "bad", objects=given)
    )
    given.write_bytes(b"\xff\xfe\x00")
    assert "cannot read the vocabulary" in refusal(lambda: convert(source, tmp_path / "bad", objects=given))
    assert "cannot read the vocabulary" in refusal(lambda: convert(source, tmp_path / "bad", objects=tmp_path / "no"))
    assert not (tmp_path / "bad").exists()


def test_the_real_vocabularies_are_the_listed_ones(sample_data: Path) -> None:
    from regionvlp.store.files import sha256_of

    for kind, listed in VISUAL_GENOME.items():
        path = sample_data / "visual_genome" / f"{kind}_vocab.txt"
        assert sha256_of(path) == listed.sha256
        assert len(read_names(path, listed.count) or []) == listed.count


def test_what_is_refused_leaves_nothing(native_state: MakeState, tmp_path: Path) -> None:
    source = write(tmp_path / "weights.pth", native_state("d2"))
    message = refusal(lambda: convert(source, tmp_path / "out", entry=ENTRIES["vg-caffe"]))
    assert "holds weights of family 'd2', but vg-caffe says 'caffe'" in message
    assert "no weights file" in refusal(lambda: convert(tmp_path / "no.pth", tmp_path / "out"), InputError)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert "exists already" in refusal(lambda: convert(source, tmp_path / "full"), InputError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "weights.pth"]
    elsewhere, killed = tmp_path / "out.nowhere-1.tmp", tmp_path / f"out.{this_host()}-999999999.tmp"
    elsewhere.mkdir()
    killed.mkdir()
    convert(source, tmp_path / "out")
    assert elsewhere.exists(), "another machine may be writing it"
    assert not killed.exists()


def test_a_changed_weights_file_is_noticed(native_state: MakeState, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(write(tmp_path / "weights.pth", native_state()), out)
    state = load_file(out / "model.safetensors")
    bias = next(name for name in state if name.endswith("cls_score.bias"))
    save_file(state | {bias: state[bias] + 1}, out / "model.safetensors")
    assert "has the checksum" in refusal(lambda: load_weights(find_detector(str(out)), {}))


class Payload:
    """Runs a command when it is unpickled, unless the reader refuses."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_by_name(protocol: int, native_state: MakeState, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pkl"
    content = {"model": arrays_of(native_state()) | {"extra": Payload(marker)}}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    message = refusal(lambda: convert(path, tmp_path / "out"))
    assert f"{os.system.__module__}.system" in message
    torch.save({"model": native_state(), "extra": Payload(marker)}, tmp_path / "weights.pth")
    assert f"{os.system.__module__}.system" in refusal(lambda: convert(tmp_path / "weights.pth", tmp_path / "out"))
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_damaged_pickles(native_state: MakeState, tmp_path: Path) -> None:
    path = write(tmp_path / "weights.pkl", native_state())
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        assert str(path) in refusal(lambda: load_weights(find_detector(str(path)), {}))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pth", "weights.safetensors", "weights.caffemodel", "w"])
def test_the_same_bytes_load_under_any_name(name: str, native_state: MakeState, tmp_path: Path) -> None:
    """transformers' own reader falls back to a pickle of arrays under "model", whatever the file is called."""
    wanted = RegionDetector.load(str(write(tmp_path / "plain.pth", native_state("maxnms"))), device="cpu").identity()
    for kind in (".pkl", ".safetensors", ".pth"):
        source = write(tmp_path / f"source{kind}", native_state("maxnms"))
        path = tmp_path / name
        shutil.copy(source, path)
        assert RegionDetector.load(str(path), device="cpu").identity()["weights"] == wanted["weights"]
        path.unlink()


def test_what_lies_beside_the_tensors_is_passed_over(native_state: MakeState, tmp_path: Path) -> None:
    wanted = RegionDetector.load(str(write(tmp_path / "plain.pth", native_state())), device="cpu").identity()
    parallel = {f"module.{name}": value for name, value in native_state().items()}
    best = {"loss": np.float64(0.5), "iteration": np.int64(3), "note": "text"}
    for number, content in enumerate(({"model": parallel, **best}, {**native_state(), **best})):
        torch.save(content, tmp_path / f"{number}.pth")
        found = RegionDetector.load(str(tmp_path / f"{number}.pth"), device="cpu")
        assert found.identity()["weights"] == wanted["weights"]


def test_a_vocabulary_may_begin_with_the_background(native_state: MakeState, tmp_path: Path) -> None:
    source = write(tmp_path / "weights.pth", native_state())
    for first in ("__background__", "background", "BG"):
        (tmp_path / "objects_vocab.txt").write_text("\n".join([first, *OBJECTS]))
        (tmp_path / "attributes_vocab.txt").write_text("\n".join(["__no_attribute__", *ATTRIBUTES]))
        convert(source, tmp_path / first)
        detector = RegionDetector.load(str(tmp_path / first), device="cpu")
        assert (detector.object_names, detector.attribute_names) == (OBJECTS, ATTRIBUTES)
        assert read_names(tmp_path / first / "objects.txt", 20) == OBJECTS
    (tmp_path / "objects_vocab.txt").write_text("\n".join(["person", *OBJECTS]))
    assert "names 21 classes, but the weights have 20" in refusal(lambda: convert(source, tmp_path / "other"))


def test_every_entry_has_a_known_family() -> None:
    for entry in ENTRIES.values():
        assert entry.family in FAMILIES
        assert entry.licence
        assert entry.hub or entry.file_names or entry.name == "toy"
