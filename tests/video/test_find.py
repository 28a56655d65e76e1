"""Which files are found, what their ids are, and which names are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regionvlp.errors import InputError
from regionvlp.video import check_video_id, find_videos
from regionvlp.video.find import refuse_bad_ids


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")


def ids(root: Path) -> list[str]:
    return [video.video_id for video in find_videos(root)]


def test_ids_are_sorted_relative_paths_with_their_extension(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a/c.MKV", "a/b/d.gif", "a/e.jpeg", "notes.txt", "a/list.csv", "mp4")
    assert ids(tmp_path) == ["a/b/d.gif", "a/c.MKV", "a/e.jpeg", "b.mp4"]
    video = find_videos(tmp_path)[-1]
    assert video.path == tmp_path / "b.mp4"
    assert video.bytes == 5
    assert video.mtime_ns == (tmp_path / "b.mp4").stat().st_mtime_ns


def test_unusual_but_sound_names_are_kept(tmp_path: Path) -> None:
    names = [
        " lead.mp4",
        "#%[]!&.mp4",
        "-dash-.mp4",
        "10:30 tête à tête 猫.mp4",
        "A.mp4",
        "a b.mp4",
        "a.mp4",
        "'q\".mp4",
    ]
    touch(tmp_path, *names)
    assert ids(tmp_path) == sorted(names)
    for name in names:
        check_video_id(name)


def test_hidden_and_system_folders_and_special_files_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", ".hidden.mp4", ".git/x.mp4", "@eaDir/a.mp4/thumb.jpg", "lost+found/x.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert ids(tmp_path) == ["a.mp4"]


def test_links_are_followed_and_loops_survived(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "real/a.mp4")
    touch(outside, "b.mp4", "c.mp4")
    (root / "again").symlink_to(root / "real")
    (root / "loop").symlink_to(root)
    (root / "out").symlink_to(outside)
    (root / "z.mp4").symlink_to(outside / "b.mp4")
    assert ids(root) == ["out/b.mp4", "out/c.mp4", "real/a.mp4", "z.mp4"]


def test_broken_links_are_listed_so_that_they_become_failures(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    assert [(video.video_id, video.bytes) for video in find_videos(tmp_path)] == [("gone.mp4", 0), ("self.mp4", 0)]


def test_images_without_a_suffix_are_known_by_content(tmp_path: Path) -> None:
    touch(tmp_path, "README")
    (tmp_path / "0000001_123").write_bytes(b"\xff\xd8\xff\xe0rest")
    (tmp_path / "0000002_456").write_bytes(b"RIFF\x00\x00\x00\x00WEBPVP8 ")
    assert ids(tmp_path) == ["0000001_123", "0000002_456"]


def test_a_single_file_is_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "clip.mp4", "list.txt")
    assert ids(tmp_path / "clip.mp4") == ["clip.mp4"]
    with pytest.raises(InputError, match="neither a folder nor a video"):
        find_videos(tmp_path / "list.txt")


def test_wrong_roots_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no video lies below .*looked for .*webm"):
        find_videos(tmp_path)


def test_an_unreadable_folder_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="closed' cannot be listed: Permission denied"):
        find_videos(tmp_path)


def test_names_that_break_lists_or_leave_the_folder_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "fine.mp4", "two\nlines.mp4", "back\\slash.mp4", "sep\u2028.mp4")
    (tmp_path / os.fsdecode(b"latin\xe9.mp4")).write_bytes(b"1")
    with pytest.raises(InputError) as caught:
        find_videos(tmp_path)
    message = str(caught.value)
    assert "two\\nlines" in message
    assert "backslash" in message
    assert "not valid UTF-8" in message
    assert "sep\\u2028" in message
    assert "fine" not in message
    assert message.isascii()


def test_names_that_differ_only_in_accent_composition_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "caf\u00e9.mp4", "cafe\u0301.mp4")
    with pytest.raises(InputError, match=r"cafe\\u0301.*caf\\xe9"):
        find_videos(tmp_path)


@pytest.mark.parametrize(
    "video_id",
    [
        "",
        "/a.mp4",
        "../a.mp4",
        "a/../b.mp4",
        "./a.mp4",
        "a//b.mp4",
        "a/",
        "C:/a.mp4",
        "a\\b",
        "a\tb",
        "a\x00b",
        "a\x85",
    ],
)
def test_ids_from_lists_are_checked_too(video_id: str) -> None:
    with pytest.raises(InputError, match="cannot be the id"):
        check_video_id(video_id)


def test_what_cameras_and_discs_write_is_taken_and_the_rest_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.mp4", "b.MTS", "c.m2ts", "d.vob", "e.mxf", "f.asf", "g.jfif", "h.avif", "notes.txt", "c.srt")
    assert len(ids(tmp_path)) == 8
    assert caplog.text == ""
    touch(tmp_path, "i.xyz", "sub/j.xyz", "k.heic", "l")
    assert len(ids(tmp_path)) == 8
    assert "left out as no videos: 2 .xyz, 1 .heic, 1 no suffix" in caplog.text


@pytest.mark.parametrize("name", ["../a.mp4", "a\\b.mp4", "/data/a.mp4"])
def test_a_name_from_a_list_is_not_a_file_to_rename(name: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_bad_ids([name])
    assert "--root" in caught.value.hint
    assert "rename" not in caught.value.hint
