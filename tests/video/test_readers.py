"""Readers on clips made on the spot: the frame of index i must be picture i, whatever container holds it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import regionvlp.extract.sources
import regionvlp.video
from regionvlp.errors import InputError, VideoError
from regionvlp.video import READERS, REASONS, available_readers, probe, read_frames

from .clips import SIDE, make_clip, make_sound, number_of, numbered, numbers

KINDS = {
    "a.mp4": {},
    "a.mkv": {},
    "a.mov": {},
    "a.m4v": {},
    "b.avi": {"codec": "mpeg4"},
    "c.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "d.gif": {"codec": "gif"},
    "e.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "f.mpg": {"codec": "mpeg2video"},
    "g.ts": {},
    "h.flv": {"codec": "flv"},
    "i.wmv": {"codec": "wmv2"},
}
needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")


def refusal(path: Path, **options: object) -> VideoError:
    with pytest.raises(VideoError) as caught:
        read_frames(path, 8, **options)
    assert caught.value.reason in REASONS
    assert caught.value.stage in {"open", "decode"}
    return caught.value


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_the_ones_their_indices_say(tmp_path: Path, name: str) -> None:
    video = read_frames(make_clip(tmp_path / name, 50, **KINDS[name]), 8)
    assert video.frame_index.tolist() == [2, 8, 14, 21, 27, 33, 39, 46]
    assert numbers(video.frames) == video.frame_index.tolist()
    assert np.allclose(np.diff(video.frame_time), np.diff(video.frame_index) / 25, atol=2e-3)
    assert (video.frames_announced, video.frames_decoded, video.packets_skipped) == (50, 50, 0)
    assert video.reader == "pyav"
    assert video.frames[0].shape == (SIDE, SIDE, 3)
    assert (video.frame_index.dtype, video.frame_time.dtype) == (np.int64, np.float64)


@needs_decord
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "b.avi", "e.mp4", "f.mpg"])
def test_decord_gives_the_same_frames(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, 50, **KINDS[name])
    video, truth = read_frames(path, 8, reader="decord"), read_frames(path, 8)
    assert video.reader == "decord"
    assert numbers(video.frames) == video.frame_index.tolist() == truth.frame_index.tolist()
    assert np.array_equal(video.frame_time, truth.frame_time)


@needs_decord
def test_decord_says_what_it_cannot_open(tmp_path: Path) -> None:
    error = refusal(make_clip(tmp_path / "a.gif", codec="gif"), reader="decord")
    assert (error.stage, error.reason) == ("open", "unreadable")
    assert "--decoder pyav" in error.hint


def test_a_short_video_gives_each_frame_once(tmp_path: Path) -> None:
    video = read_frames(make_clip(tmp_path / "a.mp4", 3), 8)
    assert numbers(video.frames) == video.frame_index.tolist() == [0, 1, 2]
    assert len(video.frame_time) == 3


def edited(path: Path) -> Path:
    """A clip of 30 packets whose edit list hides the first 10."""
    return make_clip(path, options={"bf": "0"}, shift=-10, muxer={"use_editlist": "1", "avoid_negative_ts": "disabled"})


@pytest.mark.parametrize("reader", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path, reader: str) -> None:
    video = read_frames(edited(tmp_path / "a.mp4"), 4, reader=reader)
    assert video.frames_announced == video.frames_decoded == 20
    assert video.frame_index.tolist() == [2, 7, 12, 17]
    assert numbers(video.frames) == [12, 17, 22, 27]


def test_hidden_pictures_of_vp8_do_not_count(tmp_path: Path) -> None:
    visible, path = make_clip(tmp_path / "a.webm", 30, codec="libvpx"), tmp_path / "hidden.webm"
    with av.open(visible) as source, av.open(path, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux() if p.size):
            data = bytearray(bytes(packet))
            if number == 10:
                data[0] &= ~0x10  # the flag show_frame
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            target.mux(copy)
    assert probe(path).packets == 29
    video = read_frames(path, 29)
    assert numbers(video.frames) == [number for number in range(30) if number != 10]
    assert video.frames_read == 29


def test_rotation_is_applied(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 5)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    quarter = [0, 0x10000, 0, -0x10000, 0, 0, SIDE << 16, 0, 0x40000000]  # a quarter turn clockwise
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    path.write_bytes(data)
    for number, picture in enumerate(read_frames(path, 5).frames):
        assert number_of(np.rot90(picture, 1)) == number
    assert np.abs(read_frames(path, 5).frames[1].astype(int) - numbered(1)).mean() > 5


def test_a_size_that_changes_midway_is_kept(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.mkv", 10, codec="mjpeg", side=32)
    large = make_clip(tmp_path / "large.mkv", 10, codec="mjpeg", side=64)
    with av.open(tmp_path / "both.mkv", "w") as target:
        stream = None
        for part, path in enumerate((small, large)):
            with av.open(path) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in (p for p in source.demux() if p.size):
                    packet.stream = stream
                    packet.pts = packet.dts = packet.pts + 400 * part
                    target.mux(packet)
    video = read_frames(tmp_path / "both.mkv", 4)
    assert [frame.shape[0] for frame in video.frames] == [32, 32, 64, 64]
    assert numbers(video.frames) == [2, 7, 2, 7]


def test_only_the_first_seconds_are_read(tmp_path: Path) -> None:
    for name, options in (("a.mp4", {"bf": "3"}), ("a.mkv", {"bf": "3"}), ("b.avi", {})):
        path = make_clip(tmp_path / name, 100, options=options, codec="mpeg4" if name == "b.avi" else "libx264")
        video = read_frames(path, 4, max_seconds=2)
        assert numbers(video.frames) == video.frame_index.tolist() == [5, 18, 30, 43]
        assert video.frames_announced == video.frames_decoded == 50
        assert probe(path, max_seconds=2).duration == pytest.approx(2, abs=0.05)
    assert read_frames(path, 4, max_seconds=1000).frames_decoded == 100


@needs_decord
def test_decord_obeys_the_first_seconds_too(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 100)
    video = read_frames(path, 4, reader="decord", max_seconds=2)
    assert numbers(video.frames) == video.frame_index.tolist() == [5, 18, 30, 43]


def test_probe_reads_the_facts_without_decoding(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "a.mkv", 50))
    assert (info.codec, info.width, info.height, info.packets, info.frames_announced) == ("h264", SIDE, SIDE, 50, 50)
    assert info.fps == pytest.approx(25)
    assert info.duration == pytest.approx(2.0, abs=0.05)
    assert "matroska" in info.container


def damage(path: Path, start: float, end: float) -> Path:
    data = bytearray(path.read_bytes())
    stretch = slice(int(len(data) * start), int(len(data) * end))
    data[stretch] = np.random.default_rng(0).bytes(stretch.stop - stretch.start)
    path.write_bytes(data)
    return path


def test_bad_packets_are_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    path = damage(make_clip(tmp_path / "a.mp4", 200, codec="libx264", options={"g": "10"}), 0.5, 0.6)
    video = read_frames(path, 8)
    assert 50 < video.frames_decoded < video.frames_announced == 200
    assert video.packets_skipped > 0
    assert video.frame_index.tolist() == regionvlp.video.uniform_indices(video.frames_decoded, 8)
    assert number_of(video.frames[0]) == video.frame_index[0]
    assert refusal(path, min_decoded=0.999).reason == "damaged"


def test_less_than_a_quarter_is_damage(tmp_path: Path) -> None:
    for name, codec, muxer, kept in (
        ("a.mp4", "mpeg4", {"movflags": "faststart"}, 0.1),
        ("b.mkv", "libx264", {}, 0.2),
        ("c.avi", "mpeg4", {}, 0.45),
    ):
        path = make_clip(tmp_path / name, 200, codec=codec, muxer=muxer)
        data = path.read_bytes()
        start = max(0, data.find(b"mdat"))  # the index of this MP4 stands before its pictures
        path.write_bytes(data[: start + int((len(data) - start) * kept)])
        error = refusal(path)
        assert error.reason == "damaged"
        assert "of 200 frames" in error.message
        assert len(read_frames(path, 4, min_decoded=0).frames) > 0


def test_what_is_no_video_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("<html>video unavailable</html>" * 20)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    whole = make_clip(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-600])
    expected = {
        "empty.mp4": "empty-file",
        "text.mp4": "not-a-video",
        "folder.mp4": "not-a-video",
        "link.mp4": "missing-file",
        "gone.mp4": "missing-file",
        "cut.mp4": "damaged",
    }
    assert {name: refusal(tmp_path / name).reason for name in expected} == expected
    assert refusal(make_sound(tmp_path / "sound.mp4")).reason == "no-video-stream"


def test_a_playlist_under_a_videos_name_reaches_no_other_file(tmp_path: Path) -> None:
    make_clip(tmp_path / "secret.ts")
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile secret.ts\n")
    for name in ("list.mp4", "concat.mp4"):
        assert refusal(tmp_path / name).reason == "not-a-video"


def test_names_that_mean_something_to_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gif = make_clip(tmp_path / "plain.gif", 8, codec="gif").rename(tmp_path / "a%03d.gif")
    assert numbers(read_frames(gif, 8).frames) == list(range(8))
    for name in ("-dash.mp4", "http:x.mp4", "a#%[1]!&.mp4"):
        make_clip(tmp_path / "plain.mp4", 8).rename(name)
        assert numbers(read_frames(Path(name), 8).frames) == list(range(8))


def test_pictures_too_large_for_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4")
    monkeypatch.setattr("regionvlp.video.survey.MAX_PIXELS", SIDE * SIDE - 1)
    assert refusal(path).reason == "too-large"
    monkeypatch.undo()
    monkeypatch.setattr("regionvlp.video.upright.MAX_PIXELS", SIDE * SIDE - 1)
    assert refusal(path).reason == "too-large"


def test_a_failing_disk_is_not_taken_for_a_short_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4")
    fail = OSError(5, "Input/output error")
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(fail))
    error = refusal(path)
    assert (error.reason, error.transient) == ("io-error", True)


def test_readers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(available_readers()) == set(READERS) - {"auto"}
    assert available_readers()["pyav"] == f"{av.__version__} installed"
    with pytest.raises(InputError, match=r"no reader 'decrod' .*'decord'"):
        read_frames(tmp_path / "a.mp4", 8, reader="decrod")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available_readers()["torchcodec"].startswith("missing: pip install torchcodec")
    with pytest.raises(InputError, match="'torchcodec' is not installed"):
        read_frames(tmp_path / "a.mp4", 8, reader="torchcodec")


def test_a_torchcodec_that_cannot_be_loaded_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec/__init__.py").write_text("raise RuntimeError('no libavutil\\nlong story')")
    for name in [name for name in sys.modules if "torchcodec" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"cannot be loaded: no libavutil \(it needs FFmpeg") as caught:
        read_frames(tmp_path / "a.mp4", 8, reader="torchcodec")
    assert "long story" not in str(caught.value)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, regionvlp.video as v; v.find_videos, v.DecodePool, v.available_readers();"
        "print(sorted({'torch', 'av', 'decord', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_reason_in_the_code_is_documented() -> None:
    used = {
        keyword.value.value
        for package in (regionvlp.video, regionvlp.extract.sources)
        for path in Path(package.__path__[0]).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant)
    }
    assert used == set(REASONS)
