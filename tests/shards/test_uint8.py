"""Features as whole numbers with a scale per region: how exact, how small, and what is refused."""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions, cast_features
from regionvlp.shards import Manifest, check_regions, open_shards, verify
from regionvlp.shards.codec import dequantise, quantise

MakeVideo = Callable[..., VideoRegions]
MakeManifest = Callable[..., Manifest]
WriteShard = Callable[..., None]


def quantise_slowly(row: NDArray[np.float32]) -> tuple[list[int], float]:
    """One region in plain Python: a scale of 16 bits that is not below max / 255, and the nearest codes."""
    largest = np.float32(row.max())
    if largest == 0:
        return [0] * len(row), 0.0
    fraction, exponent = math.frexp(np.float32(largest / np.float32(255)))
    scale = math.ldexp(math.ceil(fraction * 2**16) / 2**16, exponent)
    return [round(float(x) / scale) for x in row], scale


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))


def rectified(seed: int, *shape: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return np.maximum(random.gamma(0.5, size=shape) - 0.2, 0).astype(np.float32)


def test_it_agrees_with_the_slow_way() -> None:
    features = rectified(1, 40, 64)
    features[3] = 0
    features[4] *= 1e-30
    features[5] *= 1e30
    features[6] = [7] + [0] * 63
    codes, scale = quantise(features)
    for row, row_codes, row_scale in zip(features, codes, scale, strict=True):
        slow_codes, slow_scale = quantise_slowly(row)
        assert row_scale == slow_scale
        # Dividing in single or in double precision may fall on either side of a tie, and of nothing else.
        assert np.abs(row_codes.astype(int) - slow_codes).max() <= 1
        assert (row_codes != slow_codes).mean() <= 0.02
    assert codes.max(axis=1)[np.arange(40) != 3].min() == 255
    assert (np.abs(dequantise(codes, scale) - features).max(axis=1) <= scale * 0.50001).all()


@pytest.mark.parametrize("seed", range(5))
def test_what_was_read_is_stored_as_the_same_bytes(seed: int) -> None:
    features = rectified(seed, 3, 30, 512) * np.float32(10.0 ** np.random.default_rng(seed).integers(-40, 30))
    codes, scale = quantise(features)
    again, again_scale = quantise(dequantise(codes, scale))
    assert np.array_equal(scale, again_scale)
    assert np.array_equal(codes, again)


def test_numbers_too_small_for_a_scale_are_zero() -> None:
    codes, scale = quantise(np.full((2, 8), 1e-45, np.float32))
    assert not dequantise(codes, scale).any()


def test_uint8_shards_come_back_as_float32(
    tmp_path: Path, file_format: str, make_manifest: MakeManifest, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    videos = [make_video(f"{n}.mp4", dtype="float32", frames=1 + n % 4) for n in range(5)]
    write_shard(tmp_path / "set", 0, videos, make_manifest(format=file_format, dtype="uint8"))
    assert verify(tmp_path / "set") == []
    reader = open_shards(tmp_path / "set")
    for video in videos:
        read = reader[video.video_id]
        assert read.features.dtype == np.float32
        assert replace(read, features=video.features).equals(video)
        assert np.array_equal(read.features, dequantise(*quantise(video.features)))
        assert reader.frame(video.video_id, 0).features.tobytes() == read.features[:1].tobytes()
    assert "uint8 [4, 5, 16]" in repr(reader)


@pytest.mark.parametrize("file_format", ["hdf5"], indirect=True)
def test_plain_h5py_reads_codes_and_scales(
    tmp_path: Path, file_format: str, make_manifest: MakeManifest, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    video = make_video("x.mp4", dtype="float32")
    write_shard(tmp_path / "set", 0, [video], make_manifest(dtype="uint8"))
    with h5py.File(tmp_path / "set" / "shard-00000.h5") as file:
        features = file["features"][0] * file["feature_scale"][0][..., None]
        assert "feature_scale" in file["features"].attrs["about"]
        assert file["features"].chunks == (1, 1, 5, 16)
        assert file["features"].compression is None
    assert np.array_equal(features, open_shards(tmp_path / "set")["x.mp4"].features)


def test_negative_features_are_refused(make_manifest: MakeManifest, make_video: MakeVideo) -> None:
    video = make_video("x.mp4", dtype="float32", counts=[5] * 4)
    features = video.features.copy()
    features[1, 2, 3] = -1e-3
    bad = replace(video, features=features)
    check_regions(bad, make_manifest(dtype="float32"))
    with pytest.raises(ShardError, match="negative numbers, which uint8 cannot store"):
        check_regions(bad, make_manifest(dtype="uint8"))
    with pytest.raises(ShardError, match=r"features is float16 .* take float32"):
        check_regions(make_video("x.mp4"), make_manifest(dtype="uint8"))


def test_real_features(sample_data: Path, tmp_path: Path, file_format: str, write_shard: WriteShard) -> None:
    """Half of float16's bytes, and the direction of every region kept."""
    lines = (sample_data / "regions" / "train2014_obj36.first6.tsv").read_text().splitlines()
    rows = np.stack([np.frombuffer(base64.b64decode(line.split("\t")[9]), "<f4").reshape(36, 2048) for line in lines])
    count = len(rows)
    whole = VideoRegions(
        video_id="photos",
        frame_index=np.arange(count),
        frame_time=np.arange(count, dtype=np.float64),
        image_size=np.full((count, 2), 480, np.int32),
        features=rows,
        boxes=np.zeros((count, 36, 4), np.float32),
        scores=np.zeros((count, 36), np.float32),
        class_ids=np.zeros((count, 36), np.int32),
        attribute_ids=np.zeros((count, 36), np.int32),
        attribute_scores=np.zeros((count, 36), np.float32),
        num_regions=np.full(count, 36, np.int32),
    )
    sizes = {}
    for dtype in ("uint8", "float16"):
        settings = {"format": file_format, "dtype": dtype, "frames": count, "regions": 36, "feature_width": 2048}
        manifest = Manifest(**settings, shard_size=9, detector={}, video={})  # type: ignore[arg-type]
        features = cast_features(rows, manifest.memory_dtype)
        videos = [replace(whole, video_id=str(n), features=features) for n in range(4)]
        write_shard(tmp_path / dtype, 0, videos, manifest)
        sizes[dtype] = (tmp_path / dtype / manifest.data_name(0)).stat().st_size
    assert sizes["uint8"] <= 0.52 * sizes["float16"]
    read = open_shards(tmp_path / "uint8")["0"].features
    assert cosines(read, rows).min() >= 0.9998


@pytest.mark.parametrize("by_torch", [True, False])
def test_halves_are_converted_as_numpy_does_it(by_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: F401 - that it is loaded decides who converts

    if not by_torch:
        monkeypatch.delitem(sys.modules, "torch")
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert np.array_equal(cast_features(halves, "float32"), halves.astype(np.float32), equal_nan=True)
    random = np.random.default_rng(0)
    values = (random.standard_normal(20000) * 10.0 ** random.integers(-9, 6, 20000)).astype(np.float32)
    ties = (halves[:0x7BFF].astype(np.float32) + halves[1:0x7C00].astype(np.float32)) / 2
    values = np.concatenate([values, ties])
    values.setflags(write=False)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert np.array_equal(cast_features(values, "float16"), expected)
    assert cast_features(values, np.float32) is values
