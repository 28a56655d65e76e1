"""Still images as videos of one frame."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionvlp.errors import VideoError
from regionvlp.video import read_frames


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    video = read_frames(tmp_path / "a.png", 8)
    assert np.array_equal(video.frames[0], pixels)
    assert (video.frame_index.tolist(), video.frame_time.tolist()) == ([0], [0.0])
    assert (video.frames_announced, video.frames_decoded, video.reader) == (1, 1, "pillow")
    assert video.frame_index.dtype == np.int64


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    colour = Image.new("RGB", (6, 4), (255, 255, 255))
    colour.paste((0, 0, 0), (0, 0, 3, 4))
    colour.convert(mode).save(tmp_path / "a.tif")
    (picture,) = read_frames(tmp_path / "a.tif", 1).frames
    assert picture.shape == (4, 6, 3)
    assert picture.dtype == np.uint8
    assert picture[:, :3].max() == 0
    assert picture[:, 3:].min() == 255


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert read_frames(tmp_path / "a.png", 1).frames[0][0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_frames(tmp_path / "a.png", 1).frames[0][0, :, 0].tolist() == [0, 1, 128, 255]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: the left half is shown on top
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    (picture,) = read_frames(tmp_path / "a.png", 1).frames
    assert picture.shape == (16, 8, 3)
    assert picture[:8].min() == 255
    assert picture[8:].max() == 0


def test_the_first_picture_of_an_animation_and_content_without_a_suffix(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), "white"), Image.new("RGB", (4, 4), "black")
    first.save(tmp_path / "0001_77", format="GIF", save_all=True, append_images=[second])
    assert [frame.min() for frame in read_frames(tmp_path / "0001_77", 8).frames] == [255]


def refusal(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        read_frames(path, 1)
    return caught.value.reason


def test_bad_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(whole, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "web.jpg").write_text("<html>404</html>")
    (tmp_path / "empty.jpg").touch()
    Image.new("1", (20000, 10000)).save(tmp_path / "huge.png")
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "float.tiff")
    assert refusal(tmp_path / "cut.jpg") == "damaged"
    assert refusal(tmp_path / "web.jpg") == "not-an-image"
    assert refusal(tmp_path / "empty.jpg") == "empty-file"
    assert refusal(tmp_path / "gone.jpg") == "missing-file"
    assert refusal(tmp_path / "huge.png") == "too-large"
    assert refusal(tmp_path / "float.tiff") == "damaged"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    (tmp_path / "bomb.jpg").write_bytes(whole.getvalue())
    assert refusal(tmp_path / "bomb.jpg") == "too-large"


def test_the_sample_images(shared_data: Path) -> None:
    for path in sorted((shared_data / "images/odd").iterdir()):
        with Image.open(path) as image:
            size = image.size
        assert read_frames(path, 1).frames[0].shape == (size[1], size[0], 3)
    photo = next(iter(sorted((shared_data / "images/coco").glob("*.jpg"))))
    assert read_frames(photo, 1).frames[0].std() > 10
