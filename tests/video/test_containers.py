"""What containers say of themselves and is not so: clocks, matrices, counts, codecs, headers that are cut off."""

from __future__ import annotations

import importlib.util
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from regionvlp.errors import VideoError
from regionvlp.video import probe, read_frames
from regionvlp.video.upright import shown

from .clips import SIDE, make_clip, numbered, numbers

KEY = "0123456789abcdef0123456789abcdef"
MATRICES = {
    # (a, b, c, d): what a player makes of rows (top to bottom) and columns
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),  # 90 degrees clockwise, as a phone held upright
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).swapaxes(0, 1),
}


def refusal(path: Path, **options: object) -> VideoError:
    with pytest.raises(VideoError) as caught:
        read_frames(path, 8, **options)
    return caught.value


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Puts another display matrix into the track header of an MP4 file."""
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def timed_clip(path: Path, times: list[float], codec: str = "libx264") -> Path:
    """A clip whose picture i is shown at ``times[i]`` seconds."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 1
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("shift", [3, 25, 500, 90_000])
@pytest.mark.parametrize("name", ["a.mkv", "c.webm"])
def test_a_clock_that_starts_late_is_no_damage(tmp_path: Path, name: str, shift: int) -> None:
    codec = {"codec": "libvpx", "options": {"deadline": "realtime"}} if name == "c.webm" else {}
    video = read_frames(make_clip(tmp_path / name, 60, shift=shift, **codec), 8)
    assert (video.frames_announced, video.frames_decoded) == (60, 60)
    assert video.frame_time[0] == pytest.approx((shift + video.frame_index[0]) / 25)


def test_a_late_clock_hides_no_cut(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", 400, shift=500)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = read_frames(path, 8)
    assert 390 <= video.frames_announced <= 400  # by its time: Matroska counts no frames
    assert 150 < video.frames_decoded < 250


def test_pictures_of_avi_that_last_longer_are_not_missing(tmp_path: Path) -> None:
    # Its header counts ticks of the clock, of which most bring no new picture.
    path = timed_clip(tmp_path / "a.avi", [i / 25 for i in range(40)], codec="mjpeg")
    video = read_frames(path, 8)
    assert (video.frames_announced, video.frames_decoded) == (40, 40)
    assert numbers(video.frames) == video.frame_index.tolist()


@pytest.mark.parametrize("matrix", MATRICES)
def test_pictures_are_turned_and_mirrored_as_a_player_does(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = make_clip(tmp_path / "a.mp4", 4)
    plain = read_frames(path, 1).frames[0]
    turned = read_frames(with_matrix(path, matrix), 1).frames[0]
    assert np.array_equal(turned, MATRICES[matrix](plain))


def test_a_matrix_of_an_odd_angle_is_taken_for_the_nearest_right_one() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    cos, sin = round(0.94 * 65536), round(0.34 * 65536)  # 20 degrees
    assert np.array_equal(shown(picture, (cos, sin, -sin, cos)), picture)
    assert np.array_equal(shown(picture, (-sin, cos, -cos, -sin)), np.rot90(picture, -1))


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
def test_decord_is_used_only_where_it_was_compared(tmp_path: Path) -> None:
    for name in ("a.ts", "b.nut"):
        error = refusal(make_clip(tmp_path / name, 40), reader="decord")
        assert (error.reason, error.transient) == ("unreadable", False)
        assert "not exact" in error.message
        assert "--decoder pyav" in error.hint
    mirrored = with_matrix(make_clip(tmp_path / "a.mp4"), (-1, 0, 0, 1))
    assert "mirrored" in refusal(mirrored, reader="decord").message


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_the_picture_on_the_screen_is_the_one_of_a_stretch_between_two(tmp_path: Path, reader: str) -> None:
    if importlib.util.find_spec("av" if reader == "pyav" else reader) is None:
        pytest.skip(f"{reader} is not installed")
    path = timed_clip(tmp_path / "slides.mp4", [0, 60, 120, 180])
    for start, end, expected in (
        (70.0, 80.0, [1]),
        (59.0, 59.5, [0]),
        (130.0, 190.0, [3]),
        (121.0, None, [3]),
        (10.0, 130.0, [1, 2]),
    ):
        video = read_frames(path, 4, start=start, end=end, reader=reader)
        assert numbers(video.frames) == video.frame_index.tolist() == expected
        assert video.frame_time.tolist() == [60.0 * index for index in expected]
    assert refusal(path, start=500.0, reader=reader).reason == "no-frames"  # the last one is not shown for ever


def test_a_codec_without_a_decoder_and_encryption_have_reasons_of_their_own(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "unknown.mp4").write_bytes(plain.replace(b"avc1", b"zzzz"))
    muxer = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": KEY, "encryption_kid": KEY}
    expected = {
        tmp_path / "unknown.mp4": "no-decoder",
        make_clip(tmp_path / "secret.mp4", muxer=muxer): "encrypted",
    }
    for path, reason in expected.items():
        error = refusal(path)
        assert (error.reason, error.transient) == (reason, False)
        with pytest.raises(VideoError) as caught:
            probe(path)
        assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["a.mkv", "c.webm", "a.mp4", "h.flv", "b.avi"])
def test_headers_that_are_cut_off_are_damage_and_final(tmp_path: Path, name: str) -> None:
    codec = {"a.mkv": "libx264", "c.webm": "libvpx", "a.mp4": "libx264", "h.flv": "flv", "b.avi": "mpeg4"}[name]
    data = make_clip(tmp_path / name, 8, codec=codec).read_bytes()
    reasons = set()
    for size in range(16, min(len(data), 1300), 40):
        (tmp_path / f"cut-{name}").write_bytes(data[:size])
        try:
            read_frames(tmp_path / f"cut-{name}", 8, min_decoded=0)
        except VideoError as error:
            reasons.add((error.reason, error.transient))
    assert ("damaged", False) in reasons
    assert reasons <= {(reason, False) for reason in ("damaged", "not-a-video", "no-video-stream", "no-frames")}


def test_a_disk_that_fails_is_told_from_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mkv", 8)
    path.write_bytes(path.read_bytes()[:300])
    assert refusal(path).reason == "damaged"
    monkeypatch.setattr("regionvlp.video.failures._PIECE", -1)
    monkeypatch.setattr("os.fstat", lambda _: type("Status", (), {"st_size": 4000})())
    error = refusal(path)
    assert (error.reason, error.transient) == ("io-error", True)
