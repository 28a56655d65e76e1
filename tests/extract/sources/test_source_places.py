"""Globs, folders elsewhere and tars: what is listed under which id, and how it comes here."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regionvlp.errors import InputError, VideoError
from regionvlp.extract.sources import Source, open_source
from regionvlp.extract.sources.patterns import braces, fixed_part
from regionvlp.extract.sources.scratch import Scratch
from regionvlp.shards import PlanRow, PlanTable

MakeTar = Callable[..., Path]
Memory = Callable[[str, bytes], None]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def rows(source: Source) -> dict[str, PlanRow]:
    return {row.video_id: row for row in PlanTable.from_videos(source.scan(), 0, 100)}


def ids(videos: str | Path, **options: object) -> list[str]:
    return list(rows(open_source(videos, **options)))


def content(source: Source, row: PlanRow, scratch: Scratch) -> bytes:
    """What lies under the path that a worker gets, in another process: the source has been pickled on the way."""
    with pickle.loads(pickle.dumps(source)).local(row, scratch) as path:
        return bytes(path.read_bytes())


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(1000, tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize(
    ("argument", "kind", "root"),
    [
        ("folder", "folder", "folder"),
        ("folder/a.mp4", "folder", "folder"),
        ("folder/l.csv", "list", "folder"),
        ("folder/s.csv", "segments", "folder"),
        ("folder/*.mp4", "glob", "folder"),
        ("folder/**/*.mp4", "glob", "folder"),
        ("*/a.mp4", "glob", ""),
        ("tars", "webdataset", "tars"),
        ("tars/0.tar", "webdataset", "tars"),
        ("tars/{0..1}.tar", "webdataset", "tars"),
        ("tars/*.tar", "webdataset", "tars"),
        ("both", "folder", "both"),
        ("deep", "folder", "deep"),
        ("odd[1]", "folder", "odd[1]"),
        ("odd[1]/a.mp4", "folder", "odd[1]"),
    ],
)
def test_the_kind_shows_from_the_argument(
    tmp_path: Path, make_tar: MakeTar, argument: str, kind: str, root: str
) -> None:
    touch(tmp_path, "folder/a.mp4", "both/a.mp4", "deep/sub/a.mp4", "odd[1]/a.mp4", "tars/0.json")
    for name in ("tars/0.tar", "tars/1.tar", "both/0.tar", "deep/0.tar"):
        make_tar(tmp_path / name, {})
    (tmp_path / "folder/l.csv").write_text("path,duration\na,1\n")
    (tmp_path / "folder/s.csv").write_text("path,start,end\na,1,2\n")
    source = open_source(tmp_path / argument)
    assert (source.kind, source.root) == (kind, os.path.abspath(tmp_path / root))


@pytest.mark.parametrize(
    ("argument", "kind", "root"),
    [
        ("s3://bucket/a/*.mp4", "glob", "s3://bucket/a"),
        ("s3://bucket/a", "glob", "s3://bucket/a"),
        ("s3://bucket/a/b.mp4", "glob", "s3://bucket/a"),
        ("s3://bucket/{00..10}.tar", "webdataset", "s3://bucket"),
        ("file:///a%20b/c", "folder", "/a b/c"),
    ],
)
def test_the_kind_of_addresses(argument: str, kind: str, root: str) -> None:
    source = open_source(argument)
    assert (source.kind, source.root) == (kind, root)


def test_relative_arguments_and_forced_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "-v/a.mp4")
    assert open_source("-v").root == str(tmp_path / "-v")
    assert open_source("-v", kind="glob").kind == "glob"
    assert ids("-v", kind="glob") == ["a.mp4"]
    with pytest.raises(InputError, match="no kind of source 'tar'"):
        open_source("-v", kind="tar")
    with pytest.raises(InputError, match="is no list"):
        open_source("-v", kind="list")
    with pytest.raises(InputError, match="--root is for lists"):
        open_source("-v", root="x")
    with pytest.raises(InputError, match="does not exist"):
        open_source("none.csv")
    with pytest.raises(InputError, match="does not exist"):
        open_source("nowhere").scan()


def test_globs_here(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "a/y.avi", "a/b/z.MP4", "a/b/z.txt", "c/x.mp4", ".h/x.mp4", "a/.x.mp4")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "a/gone.mp4").symlink_to(tmp_path / "nowhere")
    assert ids(tmp_path / "a/*") == ["gone.mp4", "x.mp4", "y.avi"]
    assert ids(tmp_path / "*/x.mp4") == ["a/x.mp4", "c/x.mp4"]
    assert ids(tmp_path / "**/*.mp4") == ["a/gone.mp4", "a/x.mp4", "c/x.mp4"]
    assert ids(tmp_path / "**/z.*") == ["a/b/z.MP4"]
    assert ids(tmp_path / "[bc]/**/?.mp4") == ["c/x.mp4"]
    row = rows(open_source(tmp_path / "*/x.mp4"))["c/x.mp4"]
    assert (row.bytes, row.mtime_ns) == (7, (tmp_path / "c/x.mp4").stat().st_mtime_ns)
    with pytest.raises(InputError, match="no video fits"):
        ids(tmp_path / "*.mkv")


def test_globs_elsewhere(memory: Memory, scratch: Scratch) -> None:
    for name in ("v/a b.mp4", "v/d/ü.avi", "v/notes.txt", "w/c.mp4"):
        memory(f"/{name}", name.encode())
    assert ids("memory://v/*.mp4") == ["a b.mp4"]
    assert ids("memory://v") == ["a b.mp4", "d/ü.avi"]
    assert ids("memory://**/*.mp4") == ["v/a b.mp4", "w/c.mp4"]
    source = open_source("memory://v/**/*")
    row = rows(source)["d/ü.avi"]
    assert row.bytes == len("v/d/ü.avi".encode())
    assert content(source, row, scratch) == "v/d/ü.avi".encode()
    with pytest.raises(InputError, match="no video fits"):
        ids("memory://v/*.mkv")
    with pytest.raises(InputError, match=r"cannot be opened.*fsspec package"):
        ids("nosuch://v/*.mkv")


def test_lists_elsewhere(memory: Memory, scratch: Scratch) -> None:
    memory("/set/l.csv", b"video_id,caption\nb,x\na,y\n")
    memory("/set/videos/a.mp4", b"aa")
    memory("/set/videos/b.webm", b"bbb")
    source = open_source("memory://set/l.csv")
    found = rows(source)
    assert {name: row.location for name, row in found.items()} == {"a": "videos/a", "b": "videos/b"}
    assert content(source, found["a"], scratch) == b"aa"
    assert content(source, found["b"], scratch) == b"bbb"
    with pytest.raises(VideoError) as caught:
        content(source, PlanRow(0, "c", -1, -1), scratch)
    assert (caught.value.reason, caught.value.transient) == ("missing-file", False)


def test_tars(tmp_path: Path, make_tar: MakeTar, scratch: Scratch) -> None:
    long = "d" * 120
    make_tar(
        tmp_path / "00000.tar",
        {"000001.mp4": b"one", "000001.json": b"{}", "000001.txt": b"t", "./x/000002.mkv": b"two", "._3.mp4": b"mac"},
    )
    make_tar(tmp_path / "00001.tar", {f"{long}/000003.jpg": b"picture", "4.jpg": b"poster", "4.mp4": b"four"})
    make_tar(tmp_path / "00002.tar", {"5.mp4": b"five", "5.jpg": b"poster"})
    for argument in (tmp_path, tmp_path / "{00000..00002}.tar", tmp_path / "*.tar", tmp_path / "0000{0,1,2}.tar"):
        source = open_source(argument)
        found = rows(source)
        assert sorted(found) == sorted(["000001", "4", "5", f"{long}/000003", "x/000002"])
        expected = {"000001": b"one", "4": b"four", "5": b"five", "x/000002": b"two", f"{long}/000003": b"picture"}
        assert {name: content(source, row, scratch) for name, row in found.items()} == expected
    assert found["x/000002"][4:6] == ("00000.tar", "x/000002.mkv")
    with source.local(found["x/000002"], scratch) as path:
        assert path.suffix == ".mkv"
    assert not path.exists()
    assert ids(tmp_path / "00000.tar") == ["000001", "x/000002"]


def test_tars_elsewhere(tmp_path: Path, memory: Memory, make_tar: MakeTar, scratch: Scratch) -> None:
    for number in range(3):
        tar = make_tar(tmp_path / f"{number}.tar", {f"{number}/k{i}.mp4": bytes([i]) * 700 for i in range(5)})
        memory(f"/wds/{number}.tar", tar.read_bytes())
    source = open_source("memory://wds/{0..2}.tar")
    found = rows(source)
    assert len(found) == 15
    assert all(content(source, row, scratch) == bytes([int(name[-1])]) * 700 for name, row in found.items())
    assert list(rows(open_source("memory://wds/*.tar"))) == list(found)


def test_tars_that_cannot_be_used(tmp_path: Path, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "a/0.tar", {"k.mp4": b"one"})
    make_tar(tmp_path / "a/1.tar", {"k.avi": b"two"})
    with pytest.raises(InputError, match=r"'k' is k.mp4 in 0.tar and k.avi in 1.tar"):
        ids(tmp_path / "a")
    make_tar(tmp_path / "b/0.tar", {"k.mp4": b"one", "k.avi": b"two"})
    with pytest.raises(InputError, match=r"'k' is k.\w+ in 0.tar and k.\w+ in 0.tar"):
        ids(tmp_path / "b")
    make_tar(tmp_path / "c/0.tar", {"../../k.mp4": b"one"})
    with pytest.raises(InputError, match=r"'\.\./\.\./k'"):
        ids(tmp_path / "c")
    make_tar(tmp_path / "d/0.tar", {"k.txt": b"one"})
    with pytest.raises(InputError, match="hold no video or picture"):
        ids(tmp_path / "d")
    with pytest.raises(InputError, match=r"d/1\.tar does not exist.*range"):
        ids(tmp_path / "d/{0..3}.tar")
    with pytest.raises(InputError, match="no tar file"):
        ids(tmp_path / "d/7.tar")
    import gzip

    (tmp_path / "z.tar").write_bytes(gzip.compress((tmp_path / "d/0.tar").read_bytes()))
    with pytest.raises(InputError, match="is compressed"):
        ids(tmp_path / "z.tar")


@pytest.mark.parametrize("cut", [600, 1024, 1700, 2048, 2600])
def test_a_tar_that_breaks_off_gives_what_it_has_and_a_failure(
    tmp_path: Path, make_tar: MakeTar, scratch: Scratch, cut: int
) -> None:
    """Each member takes 1024 bytes: a header and a block."""
    whole = make_tar(tmp_path / "whole.tar", {f"{i}.mp4": bytes([65 + i]) * 300 for i in range(3)}).read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/0.tar").write_bytes(whole[:cut])
    source = open_source(tmp_path / "cut")
    found = rows(source)
    # A cut between two members looks like a tar without the usual end, which some programs write.
    assert ("0.tar" in found) == (cut % 1024 != 0)
    for name, row in found.items():
        if name == "0.tar" or row.offset + 300 > cut:
            with pytest.raises(VideoError) as caught:
                content(source, row, scratch)
            assert (caught.value.reason, caught.value.transient) == ("damaged", False)
        else:
            assert content(source, row, scratch) == bytes([65 + int(name)]) * 300


@pytest.mark.parametrize("junk", [b"", b"<html>not found</html>" * 40])
def test_what_is_no_tar_is_a_failure_beside_the_others(
    tmp_path: Path, make_tar: MakeTar, scratch: Scratch, junk: bytes
) -> None:
    make_tar(tmp_path / "0.tar", {"k.mp4": b"one"})
    (tmp_path / "1.tar").write_bytes(junk)
    source = open_source(tmp_path)
    found = rows(source)
    assert list(found) == ["1.tar", "k"]
    with pytest.raises(VideoError, match="breaks off or is no tar"):
        content(source, found["1.tar"], scratch)


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (OSError(5, "Input/output error"), "io-error", True),
        (TimeoutError("slow"), "io-error", True),
        (RuntimeError("what a network library raises"), "io-error", True),
        (PermissionError(13, "Permission denied"), "io-error", False),
        (FileNotFoundError(2, "gone"), "missing-file", False),
    ],
)
def test_trouble_on_the_way(memory: Memory, scratch: Scratch, error: Exception, reason: str, transient: bool) -> None:
    from .conftest import Flaky

    memory("/v/a.mp4", b"12345")
    source = open_source("flaky://v/*.mp4")
    row = rows(source)["a.mp4"]
    Flaky.error = error
    with pytest.raises(VideoError) as caught:
        content(source, row, scratch)
    assert (caught.value.stage, caught.value.reason, caught.value.transient) == ("open", reason, transient)
    Flaky.error = None
    assert content(source, row, scratch) == b"12345"
    assert scratch._kept == 0
    memory("/v/a.mp4", b"123")
    with pytest.raises(VideoError, match="gave 3 of 5 bytes") as caught:
        content(source, row, scratch)
    assert caught.value.transient


def test_a_full_disk_is_no_fault_of_the_video(memory: Memory, scratch: Scratch) -> None:
    from .conftest import Flaky

    memory("/v/a.mp4", b"12345")
    source = open_source("flaky://v/*.mp4")
    Flaky.error = OSError(28, "No space left on device")
    with pytest.raises(InputError, match="No space left") as caught:
        content(source, rows(source)["a.mp4"], scratch)
    assert not isinstance(caught.value, VideoError)
    assert "TMPDIR" in caught.value.hint


def test_who_asks_for_the_same_shares_the_copy(memory: Memory, scratch: Scratch) -> None:
    from .conftest import Flaky

    memory("/v/a.mp4", b"12345")
    source = open_source("flaky://v/*.mp4")
    row = rows(source)["a.mp4"]
    with source.local(row, scratch) as one, source.local(row, scratch) as other:
        assert one == other
    assert not one.exists()
    assert Flaky.gets == 1


def test_copies_never_take_more_room_than_they_may(tmp_path: Path) -> None:
    scratch = Scratch(1000, tmp_path)
    most, lock = 0, threading.Lock()

    def size_of(path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:  # gone meanwhile
            return 0

    def use(number: int) -> None:
        nonlocal most
        size = 2500 if number == 7 else 300
        with scratch.copy(str(number), size, ".mp4", lambda path: path.write_bytes(bytes(size)) and None):
            with lock:
                kept = [size for file in tmp_path.rglob("*.mp4") if (size := size_of(file))]
                assert sum(kept) <= 1000 or kept == [2500]
                most = max(most, len(kept))
            time.sleep(0.002)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(use, range(60)))
    assert most == 3
    assert list(tmp_path.rglob("*.mp4")) == []
    scratch.close()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    from regionvlp.store.files import temporary_path

    mine = temporary_path(tmp_path / "regionvlp-clips").name
    dead, other_host = f"{mine.rpartition('-')[0]}-99999999s1n0.tmp", "regionvlp-clips.elsewhere-1s1n0.tmp"
    for name in (dead, other_host, "regionvlp-clips-of-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.mp4").write_bytes(b"x")
    scratch = Scratch(1000, tmp_path)
    with scratch.copy("k", 1, "", lambda path: path.write_bytes(b"x") and None):
        left = set(os.listdir(tmp_path))
    assert dead not in left
    assert {other_host, "regionvlp-clips-of-mine"} < left


def test_braces_and_fixed_parts() -> None:
    assert list(braces("{008..011}.tar")) == ["008.tar", "009.tar", "010.tar", "011.tar"]
    assert list(braces("{9..11}{a,b}")) == ["9a", "9b", "10a", "10b", "11a", "11b"]
    assert list(braces("x{}y")) == ["x{}y"]
    assert fixed_part("/a/b*/c/*.mp4") == "/a"
    assert fixed_part("s3://b/{0..1}.tar") == "s3://b"


def test_members_of_tars_that_are_links_lead_to_their_bytes(
    tmp_path: Path, scratch: Scratch, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind, target in (
            ("x/a.mp4", tarfile.REGTYPE, ""),
            ("b.mp4", tarfile.LNKTYPE, "x/a.mp4"),
            ("x/c.mp4", tarfile.SYMTYPE, "../b.mp4"),
            ("d.mp4", tarfile.SYMTYPE, "/etc/passwd"),
            ("e.mp4", tarfile.LNKTYPE, "nowhere.mp4"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"video"))
    source = open_source(tmp_path / "0.tar")
    found = rows(source)
    assert {name: content(source, row, scratch) for name, row in found.items()} == dict.fromkeys(
        ["b", "x/a", "x/c"], b"video"
    )
    assert "2 links that lead nowhere (such as 'd.mp4 in 0.tar')" in caplog.text


def test_members_without_a_place_of_their_own_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [("a.mp4", {}), ("b.mp4", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})]
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, headers in members:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 512, headers
            tar.addfile(info, io.BytesIO(b"1\n0\n9\n".ljust(512, b"\0")))
    assert ids(tmp_path / "0.tar") == ["a"]
    assert "1 sparse files" in caplog.text


def test_names_in_tars_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("caf\udce9.mp4"))
    with pytest.raises(InputError, match="not valid UTF-8"):
        ids(tmp_path / "0.tar")


@pytest.mark.parametrize("name", ["data [1].tar", "data {0,1}.tar", "clips [1]"])
def test_names_with_brackets_that_are_there_are_names(tmp_path: Path, make_tar: MakeTar, name: str) -> None:
    if name.endswith(".tar"):
        make_tar(tmp_path / name, {"a.mp4": b"one"})
        assert ids(tmp_path / name) == ["a"]
    else:
        touch(tmp_path, f"{name}/a.mp4")
        assert ids(tmp_path / name) == ["a.mp4"]


def test_a_glob_tells_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.mp4", "b.xyz", "c.txt")
    assert ids(tmp_path / "*") == ["a.mp4"]
    assert "1 .xyz" in caplog.text
