"""What is written is what is read, in both formats, by this package and by plain h5py and pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

import regionvlp
from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, ShardWriter, check_regions, open_shards
from regionvlp.shards.receipts import Receipt
from regionvlp.store.receipts import receipt_path

MakeVideo = Callable[..., VideoRegions]
MakeManifest = Callable[..., Manifest]
WriteShard = Callable[..., None]
ShardSet = tuple[Path, dict[str, VideoRegions]]


def test_every_video_comes_back_bit_for_bit(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    with regionvlp.open_shards(folder) as reader:
        assert reader.video_ids == list(videos)
        assert dict(reader).keys() == videos.keys()
        for name, video in videos.items():
            assert reader[name].equals(video)
            assert reader.num_frames(name) == video.num_frames


def test_both_formats_read_the_same(
    tmp_path: Path, make_manifest: MakeManifest, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    videos = [make_video(f"{n}.mp4", frames=1 + n % 4) for n in range(9)]
    for name in ("hdf5", "parquet"):
        write_shard(tmp_path / name, 0, videos, make_manifest(format=name))
    hdf5, parquet = open_shards(tmp_path / "hdf5"), open_shards(str(tmp_path / "parquet"))
    assert hdf5.video_ids == parquet.video_ids
    assert all(hdf5[name].equals(parquet[name]) for name in hdf5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("counts", [[0, 0], [0, 5], [5, 0, 3, 5], [0]])
def test_dtypes_and_frames_without_regions(
    tmp_path: Path,
    file_format: str,
    dtype: str,
    counts: list[int],
    make_manifest: MakeManifest,
    make_video: MakeVideo,
    write_shard: WriteShard,
) -> None:
    video = make_video("v.mp4", frames=len(counts), dtype=dtype, counts=counts)
    write_shard(tmp_path / "set", 7, [video], make_manifest(format=file_format, dtype=dtype))
    read = open_shards(tmp_path / "set")["v.mp4"]
    assert read.equals(video)
    assert read.features.dtype == np.dtype(dtype)


def test_a_float32_shard_refuses_float16_and_other_shapes(make_manifest: MakeManifest, make_video: MakeVideo) -> None:
    with pytest.raises(ShardError, match=r"features is float16 .* take float32"):
        check_regions(make_video("v"), make_manifest(dtype="float32"))
    with pytest.raises(ShardError, match="4 frames, and these shards take 1 to 3"):
        check_regions(make_video("v"), make_manifest(frames=3))
    with pytest.raises(ShardError, match=r"features is float16 with shape \(5, 16\)"):
        check_regions(make_video("v"), make_manifest(feature_width=17))


def test_one_frame_is_read_alone(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    reader = open_shards(folder)
    video = videos["f.avi"]
    # The bytes of every other frame are destroyed; a frame that needed them could not come back whole.
    path = folder / reader.manifest.data_name(2)
    content = path.read_bytes()
    for other in (0, 1, 3):
        assert content.count(video.features[other].tobytes()) == 1
        content = content.replace(video.features[other].tobytes(), b"\xff" * video.features[other].nbytes)
    path.write_bytes(content)
    frame = reader.frame("f.avi", 2)
    assert frame.num_frames == 1
    for name in ("frame_index", "frame_time", "image_size", "features", "boxes", "scores", "class_ids", "num_regions"):
        assert np.array_equal(getattr(frame, name), getattr(video, name)[2:3]), name
    with pytest.raises(ShardError, match=r"'f.avi' in .*: frame 0 is not what was written"):
        reader["f.avi"]
    assert not open_shards(folder, checksums=False)["f.avi"].equals(video)


def test_frames_that_a_video_does_not_have(shard_set: ShardSet) -> None:
    reader = open_shards(shard_set[0])
    assert reader.frame("e.jpg", 0).equals(shard_set[1]["e.jpg"])
    for slot in (1, -1):
        with pytest.raises(IndexError, match=r"'e.jpg', which has 1"):
            reader.frame("e.jpg", slot)


def test_unused_slots_cost_no_feature_bytes(
    tmp_path: Path, file_format: str, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    wide = {"format": file_format, "dtype": "float16", "frames": 8, "regions": 5, "feature_width": 16}
    manifest = Manifest(**wide, shard_size=8, detector={}, video={})  # type: ignore[arg-type]
    sizes = []
    for frames in (1, 4):
        folder = tmp_path / str(frames)
        write_shard(folder, 0, [make_video(f"{n}", frames=frames) for n in range(50)], manifest)
        sizes.append((folder / manifest.data_name(0)).stat().st_size)
    features = 50 * 3 * 5 * 16 * 2
    assert features <= sizes[1] - sizes[0] < 3 * features


def test_the_same_input_gives_the_same_bytes(
    tmp_path: Path, file_format: str, make_manifest: MakeManifest, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    manifest = make_manifest(format=file_format)
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_shard(folder, 3, [make_video("x.mp4"), make_video("y.mp4", frames=2)], manifest)
    one, two = ((tmp_path / name / manifest.data_name(3)).read_bytes() for name in ("one", "two"))
    assert one == two
    assert Receipt.read(receipt_path(tmp_path / "one", 3)).bytes == len(one)


def test_plain_h5py_reads_it(
    tmp_path: Path, make_manifest: MakeManifest, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    videos = [make_video("x.mp4"), make_video("ü.mp4", frames=2)]
    write_shard(tmp_path / "set", 0, videos, make_manifest())
    with h5py.File(tmp_path / "set" / "shard-00000.h5") as file:
        assert file["video_id"].asstr()[:].tolist() == ["x.mp4", "ü.mp4"]
        assert file["num_frames"][:].tolist() == [4, 2]
        assert file["features"].chunks == (1, 1, 5, 16)
        assert file["features"].compression is None
        assert file["features"].id.get_num_chunks() == 6
        assert np.array_equal(file["features"][1, :2], videos[1].features)
        assert not file["features"][1, 2:].any()
        for name in ("boxes", "scores", "class_ids", "frame_time", "image_size", "attribute_ids"):
            assert file[name].chunks[:2] == (1, 4), "one chunk a video"
            assert file[name].compression is None
            assert np.array_equal(file[name][0], getattr(videos[0], name)), name
        assert h5py.h5g.get_objinfo(file.id, b"features").mtime == 0, "time stamps would change the bytes"
        assert "x1 y1 x2 y2" in file["boxes"].attrs["about"]
        assert json.loads(file.attrs["manifest"])["detector"]["name"] == "toy"


def test_plain_pyarrow_reads_it(
    tmp_path: Path, make_manifest: MakeManifest, make_video: MakeVideo, write_shard: WriteShard
) -> None:
    videos = [make_video("x.mp4"), make_video("ü.mp4", frames=2)]
    write_shard(tmp_path / "set", 0, videos, make_manifest(format="parquet"))
    file = pq.ParquetFile(tmp_path / "set" / "shard-00000.parquet")
    assert file.metadata.num_row_groups == 2
    described = json.loads(file.schema_arrow.metadata[b"columns"])
    assert described["features_0"] == {"dtype": "float16", "shape": [5, 16], "about": "feature vector of each region"}
    for row, video in enumerate(videos):
        read = file.read_row_group(row).to_pylist()[0]
        assert (read["video_id"], read["num_frames"]) == (video.video_id, video.num_frames)
        for slot in range(4):
            expected = video.features[slot].tobytes() if slot < video.num_frames else None
            assert read[f"features_{slot}"] == expected
        for name in ("boxes", "scores", "class_ids", "frame_time", "image_size", "attribute_ids"):
            values = np.array(read[name], described[name]["dtype"]).reshape(-1, *described[name]["shape"])
            assert np.array_equal(values, getattr(video, name)), name


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("features", np.inf, "features holds numbers that are not finite"),
        ("features", -np.inf, "features holds numbers that are not finite"),
        ("features", np.nan, "features holds numbers that are not finite"),
        ("features", np.float16(65504), None),
        ("boxes", np.nan, "boxes holds numbers that are not finite"),
        ("frame_time", np.inf, "frame_time holds numbers that are not finite"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(
    field: str, value: float, words: str | None, make_manifest: MakeManifest, make_video: MakeVideo
) -> None:
    video = make_video("v.mp4", counts=[5, 5, 5, 5])
    values = getattr(video, field).copy()
    values.flat[-1] = value
    bad = replace(video, **{field: values})
    if words is None:
        check_regions(bad, make_manifest())
    else:
        with pytest.raises(ShardError, match=words):
            check_regions(bad, make_manifest())


def test_float16_overflow_is_refused_before_anything_is_written(
    tmp_path: Path, file_format: str, make_manifest: MakeManifest, make_video: MakeVideo
) -> None:
    manifest = Manifest.create_or_check(tmp_path / "set", make_manifest(format=file_format))
    good = make_video("good.mp4", counts=[5] * 4)
    with np.errstate(over="ignore"):
        overflow = (good.features.astype(np.float32) * 1e6).astype(np.float16)
    with ShardWriter(tmp_path / "set", 0, manifest) as writer:
        with pytest.raises(ShardError, match="not finite"):
            writer.add(replace(good, video_id="bad.mp4", features=overflow))
        writer.add(good)
        assert writer.finish().videos == 1
    assert open_shards(tmp_path / "set").video_ids == ["good.mp4"]


def test_inside_out_boxes_and_dirty_padding_are_refused(make_manifest: MakeManifest, make_video: MakeVideo) -> None:
    video = make_video("v.mp4", counts=[2, 5, 5, 5])
    boxes = video.boxes.copy()
    boxes[1, 0] = [10, 10, 9, 20]
    with pytest.raises(ShardError, match="x2 < x1"):
        check_regions(replace(video, boxes=boxes), make_manifest())
    scores = video.scores.copy()
    scores[0, 2] = 0.5
    with pytest.raises(ShardError, match="scores holds numbers other than zero beyond num_regions"):
        check_regions(replace(video, scores=scores), make_manifest())


@pytest.mark.parametrize("video_id", ["", "a\0b", "broken-\udcff.mp4"])
def test_ids_that_cannot_be_stored_are_refused(
    video_id: str, make_manifest: MakeManifest, make_video: MakeVideo
) -> None:
    with pytest.raises(ShardError, match="its id is"):
        check_regions(replace(make_video("v"), video_id=video_id), make_manifest())


@pytest.mark.parametrize("video_id", ["a\nb", "-dash", "../up", "日本語 と space.mp4", "x" * 3000, "%s{}'\""])
def test_odd_ids_survive(
    tmp_path: Path,
    file_format: str,
    video_id: str,
    make_manifest: MakeManifest,
    make_video: MakeVideo,
    write_shard: WriteShard,
) -> None:
    write_shard(tmp_path / "set", 0, [make_video(video_id)], make_manifest(format=file_format))
    assert open_shards(tmp_path / "set")[video_id].equals(make_video(video_id))
