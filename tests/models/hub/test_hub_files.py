"""Where models come from: folders, a Hub of this machine, bundles; and every way in which they are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import hub_models
import pytest
import torch
from safetensors.torch import load_file, save_file

from regionvlp.errors import InputError, RegionVLPError, WeightsError
from regionvlp.models.hub import files as hub
from regionvlp.models.hub.opening import choose_precision, open_joint_model
from regionvlp.pipelines.cli import run

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    hub_models.siglip(root / "siglip", second=True)
    hub_models.clip(root / "clip")
    hub_models.open_clip_vit(root / "open_clip")
    return {name: root / name for name in ("siglip", "clip", "open_clip")}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model that may be spoilt."""
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


@pytest.fixture
def cache(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub's cache in which ``tiny/siglip`` is at its first commit, without a network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    publish(tmp_path / "cache", "tiny/siglip", folders["siglip"], COMMITS[0])
    return tmp_path / "cache"


def publish(cache: Path, name: str, folder: Path, commit: str) -> None:
    """Makes a folder the newest commit of a name, as if it had been fetched."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text(commit)


def test_a_name_is_pinned_to_its_commit(cache: Path, copied: Callable[[str], Path]) -> None:
    files = hub.find_model("tiny/siglip")
    assert (files.name, files.revision, files.layout) == ("tiny/siglip", COMMITS[0], "transformers")
    assert files.identity() == hub.find_model(str(files.folder)).identity()
    other = copied("siglip")
    hub_models.siglip(other, second=True, seed=5)
    publish(cache, "tiny/siglip", other, COMMITS[1])
    assert hub.find_model("tiny/siglip").revision == COMMITS[1]
    pinned = hub.find_model(f"tiny/siglip@{COMMITS[0]}")
    assert pinned.revision == COMMITS[0]
    assert pinned.identity() == files.identity() != hub.find_model("tiny/siglip").identity()


def test_a_bundle_is_read_anywhere(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "bundle"
    for _ in range(2):  # the second time there is nothing to do
        assert run(["weights", "fetch", "hub:tiny/siglip", "--to", str(to)]) == 0
    assert f"tiny/siglip at {COMMITS[0]}" in capsys.readouterr().out
    before = hub.find_model("tiny/siglip").identity()
    shutil.rmtree(cache)
    after = hub.find_model(str(to))
    assert after.identity() == before
    assert (after.name, after.revision) == ("tiny/siglip", COMMITS[0])
    assert not any(path.is_symlink() for path in to.iterdir())
    open_joint_model(str(to))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="is not empty"):
        hub.bundle(after, tmp_path / "full")


def test_weights_may_be_a_pickle_of_tensors_and_nothing_else(copied: Callable[[str], Path]) -> None:
    folder = copied("open_clip")
    safe = folder / "open_clip_model.safetensors"
    expected = open_joint_model(str(folder))[0].read(hub_models.SENTENCES)
    torch.save(load_file(safe), folder / "open_clip_pytorch_model.bin")
    safe.unlink()
    assert (open_joint_model(str(folder))[0].read(hub_models.SENTENCES) == expected).all()

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("run",))

    torch.save({"state_dict": Evil()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(RegionVLPError):
        open_joint_model(str(folder))


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _config(name: str, **changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return change


def _open_clip(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "open_clip_config.json"
        values = json.loads(path.read_text())
        for key, value in changes.items():
            part, _, name = key.partition("__")
            (values["model_cfg"][part] if name else values["model_cfg"])[name or part] = value
        path.write_text(json.dumps(values))

    return change


def _truncated(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])


def _fewer_tensors(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if "weight" in name))
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("model", "spoil", "words"),
    [
        ("siglip", _without("tokenizer.json"), "lacks tokenizer.json"),
        ("siglip", _without("preprocessor_config.json"), "lacks preprocessor_config.json"),
        ("clip", _without("model.safetensors"), "lacks model.safetensors"),
        ("open_clip", _without("open_clip_model.safetensors"), "lacks open_clip_model.safetensors"),
        ("open_clip", _without("open_clip_config.json"), "holds no model"),
        ("siglip", _config("config.json", model_type="siglip2"), "of the kind 'siglip2'"),
        ("clip", _config("config.json", model_type="bert"), "of the kind 'bert'"),
        ("clip", _config("preprocessor_config.json", crop_size={"height": 32, "width": 32}), "is of two sizes"),
        ("siglip", _config("preprocessor_config.json", size={"height": 32, "width": 32}), "is of two sizes"),
        ("clip", _truncated, "cannot be read"),
        ("clip", _fewer_tensors, "lack"),
        ("open_clip", _truncated, "cannot read|cannot be read|damaged|is cut"),
        ("open_clip", _fewer_tensors, "of another architecture"),
        ("open_clip", _open_clip(vision_cfg__image_size=96), "of another architecture"),
        ("open_clip", _open_clip(text_cfg__hf_model_name="roberta-base"), "of another kind"),
        ("open_clip", _open_clip(text_cfg__hf_tokenizer_name="x/y"), "lacks tokenizer.json"),
        ("open_clip", _open_clip(vision_cfg__timm_model_name="hf-hub:x/y"), "of another kind"),
        ("open_clip", _open_clip(embed_dim="many"), "cannot make the model"),
        ("open_clip", lambda folder: (folder / "open_clip_config.json").write_text("{"), "cannot be read"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(
    copied: Callable[[str], Path], model: str, spoil: Callable[[Path], object], words: str
) -> None:
    folder = copied(model)
    spoil(folder)
    with pytest.raises(RegionVLPError, match=words) as caught:
        open_joint_model(str(folder))
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hub:tiny/none", "tiny/none is not in the Hub's cache, and cannot be fetched: HF_HUB_OFFLINE is set"),
        ("hub:nowhere", "'hub:nowhere' names no repository of the hub"),
        ("hub:", "'hub:' names no repository of the hub"),
    ],
)
def test_a_name_without_a_model_is_one_line(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    assert run(["index", "--videos", str(tmp_path), "--out", str(tmp_path / "i"), "--encoder", name]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "i").exists()


def test_no_network_says_what_to_fetch_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        hub.find_model(hub.DEFAULT)
    assert "regionvlp weights fetch hub:timm/PE-Core-S-16-384 --to DIR" in caught.value.hint


def test_precision_is_what_is_faster_here(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from regionvlp.models.hub import opening

    model, _ = open_joint_model(str(folders["siglip"]))
    pixels = torch.stack([model.prepare(frame) for frame in hub_models.frames()])
    exact = model.see(pixels).pooled
    monkeypatch.setattr(opening, "_has_bfloat16", lambda device: True)
    for faster in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(opening, "_timed", lambda model, pixels, dtype, faster=faster: float(dtype is not faster))
        assert choose_precision(model) is faster
        difference = float((model.see(pixels).pooled - exact).abs().max())
        assert (0 < difference < 0.05) if faster is torch.bfloat16 else difference == 0
