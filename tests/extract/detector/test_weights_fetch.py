"""Fetching weights: a local web server plays the hub, the file servers, and their failures."""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from weights_server import COMMIT, Server, serving

from regionvlp.errors import InputError, RegionVLPError, WeightsError
from regionvlp.extract.detector import RegionDetector, catalogue, fetch, find_detector, weights_status
from regionvlp.extract.detector.download import download

State = dict[str, torch.Tensor]
MakeState = Callable[..., State]
CONTENT = bytes(range(256)) * 4096  # 1 MiB
HUB = "/unc-nlp/frcnn-vg-finetuned/resolve/main"
CONFIG = b"input: {min_size_test: 800, max_size_test: 1333}\nrpn: {post_nms_topk_test: 100}\nmax_detections: 36\n"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder."""
    monkeypatch.setenv("REGIONVLP_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the hub's client ask servers, whatever was set when it was imported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(
    server: Server, native_state: MakeState, online: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Server:
    """A hub with a narrow ``vg-hub``, and its class names beside it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    server.files |= {f"{HUB}/pytorch_model.bin": packed(native_state("maxnms")), f"{HUB}/config.yaml": CONFIG}
    for kind, count in (("objects", 20), ("attributes", 7)):
        names = "\n".join(f"{kind} {i}" for i in range(count)).encode()
        server.files[f"/{kind}.txt"] = names
        listed = catalogue.Vocabulary(f"{server.address}/{kind}.txt", count, hashlib.sha256(names).hexdigest())
        monkeypatch.setitem(catalogue.VISUAL_GENOME, kind, listed)
    return server


def packed(state: State) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def refusal(call: Callable[[], Any], kind: type[RegionVLPError] = WeightsError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_broken_download_goes_on_by_itself(server: Server, tmp_path: Path) -> None:
    server.files["/a%20b.bin"] = CONTENT
    server.break_after = [300_000, 200_000]
    seen: list[tuple[int, int | None]] = []
    path = download(
        f"{server.address}/a%20b.bin", tmp_path, sha256=hashlib.sha256(CONTENT).hexdigest(), pause=0.0,
        on_bytes=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("a b.bin")
    assert [asked for _, _, asked in server.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_call_goes_on_as_well(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"] = CONTENT
    server.break_after = [1000, 0]
    url = f"{server.address}/w.bin"
    message = refusal(lambda: download(url, tmp_path, pause=0.0))
    assert "broke off after 1,000 bytes" in message
    assert "goes on from there" in message
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][2] == "bytes=1000-"


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changed_is_begun_anew(tags: bool, server: Server, tmp_path: Path) -> None:
    server.tags = tags
    server.files["/w.bin"] = CONTENT
    server.break_after = [1000, 0, 0]
    refusal(lambda: download(f"{server.address}/w.bin", tmp_path, pause=0.0))
    server.break_after.clear()
    server.files["/w.bin"] = changed = CONTENT[::-1]
    assert download(f"{server.address}/w.bin", tmp_path).read_bytes() == changed


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"] = CONTENT
    server.break_after = [1000, 0]
    refusal(lambda: download(f"{server.address}/w.bin", tmp_path, pause=0.0))
    part = next(tmp_path.glob("*.part"))
    part.write_bytes(CONTENT + b"more")
    assert download(f"{server.address}/w.bin", tmp_path, pause=0.0).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/w.bin"] = CONTENT
    message = refusal(lambda: download(f"{server.address}/w.bin", tmp_path, sha256="0" * 64))
    assert "checksum" in message
    assert "0" * 64 in message
    assert not list(tmp_path.iterdir())


def test_servers_that_do_not_give_a_file(server: Server, tmp_path: Path) -> None:
    assert "HTTP 404" in refusal(lambda: download(f"{server.address}/missing.bin", tmp_path))
    assert "cannot reach" in refusal(lambda: download(f"{closed_port()}/w.bin", tmp_path))
    assert "not the URL of a file" in refusal(lambda: download("ftp://example.org/w.bin", tmp_path), InputError)
    server.files["/w.bin"], server.kind = b"<html>sign in</html>", "text/html"
    assert "web page" in refusal(lambda: download(f"{server.address}/w.bin", tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_url_becomes_a_detector_folder(server: Server, folder: Path, native_state: MakeState) -> None:
    server.files["/k36.pth"] = packed(native_state())
    described = fetch.fetch("vg-caffe-k36", source=f"{server.address}/k36.pth")
    assert (described["name"], described["family"]) == ("vg-caffe-k36", "caffe")
    assert described["origin"]["url"] == f"{server.address}/k36.pth"
    assert "Apache-2.0" in described["origin"]["licence"]
    config = RegionDetector.load("vg-caffe-k36", device="cpu").config
    assert (config.name, config.selection.max_boxes) == ("vg-caffe-k36", 36)
    assert not list((folder / "downloads").iterdir())
    message = refusal(lambda: fetch.fetch("vg-d2", source=f"{server.address}/k36.pth"))
    assert "family 'caffe', but vg-d2 says 'd2'" in message
    assert not (folder / "vg-d2").exists()
    assert not list((folder / "downloads").iterdir())
    assert "exists already" in refusal(
        lambda: fetch.fetch("vg-caffe-k36", source=f"{server.address}/k36.pth"), InputError
    )
    assert "does not name a weights file" in refusal(
        lambda: fetch.fetch("vg-d2", source=f"{server.address}/share?id=7"), InputError
    )


def test_a_known_checksum_is_verified(
    server: Server, folder: Path, native_state: MakeState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.files["/w.pth"] = content = packed(native_state())
    (tmp_path / "w.pth").write_bytes(content)
    expected = replace(catalogue.ENTRIES["vg-caffe"], sha256="f" * 64)
    monkeypatch.setitem(catalogue.ENTRIES, "vg-caffe", expected)
    for source in (f"{server.address}/w.pth", str(tmp_path / "w.pth")):
        assert "f" * 64 in refusal(lambda source=source: fetch.fetch("vg-caffe", source=source))
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_names_that_cannot_be_fetched(folder: Path) -> None:
    message = refusal(lambda: fetch.fetch("vg-caffe"))
    assert "MILVLG/bottom-up-attention.pytorch" in message
    assert "regionvlp weights fetch vg-caffe --from" in message
    assert "did you mean 'vg-hub'?" in refusal(lambda: fetch.fetch("vg-hubb"))
    assert "ResNet-152" in refusal(lambda: fetch.fetch("vg-caffe-r152"))
    assert "ResNet-152" in refusal(lambda: find_detector("vg-caffe-r152"))
    assert "comes with the package" in refusal(lambda: fetch.fetch("toy"), InputError)
    assert not folder.exists()


def test_the_hub(hub: Server, folder: Path) -> None:
    described = fetch.fetch("vg-hub")
    assert (described["family"], described["input"]) == ("maxnms", {"short_side": 800, "long_side": 1333})
    assert described["origin"] | {"licence": ""} == {
        "file": "pytorch_model.bin",
        "file_sha256": hashlib.sha256(hub.files[f"{HUB}/pytorch_model.bin"]).hexdigest(),
        "hub": "unc-nlp/frcnn-vg-finetuned",
        "revision": COMMIT,
        "licence": "",
    }
    assert sorted(path.name for path in (folder / "vg-hub").iterdir()) == [
        "attributes.txt", "detector.yaml", "model.safetensors", "objects.txt",
    ]  # fmt: skip
    detector = RegionDetector.load("vg-hub", device="cpu")
    assert (detector.config.name, detector.config.rpn.proposals) == ("vg-hub", 100)
    assert detector.object_names is not None
    assert detector.object_names[3] == "objects 3"
    assert [row["usable"] for row in weights_status()] == [True, False, True]


def test_auto_fetches_the_hub_and_says_so(
    hub: Server, folder: Path, native_state: MakeState, caplog: pytest.LogCaptureFixture
) -> None:
    for fetched_now in (True, False):
        caplog.clear()
        before = len(hub.requests)
        with caplog.at_level(logging.WARNING):
            assert RegionDetector.load("auto", device="cpu").config.name == "vg-hub"
        assert (len(hub.requests) > before) == fetched_now
        (line,) = [record.getMessage() for record in caplog.records]
        for part in ("vg-hub", "licence", "DemoVLP", "vg-caffe"):
            assert part in line
    torch.save(native_state(), folder / "vg-caffe.pth")
    assert RegionDetector.load("auto", device="cpu").config.name == "vg-caffe"


def test_without_class_names_the_detector_still_works(
    hub: Server, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del hub.files["/attributes.txt"]
    described = fetch.fetch("vg-hub")
    assert sorted(described["vocabularies"]) == ["objects"]
    assert "regions are shown by number" in caplog.text
    assert RegionDetector.load("vg-hub", device="cpu").attribute_names is None
    given = folder / "given.txt"
    given.write_text("red\nblue\n")
    assert "names 2 classes, but the weights have 7" in refusal(lambda: fetch.fetch("vg-hub", attributes=given))
    given.write_text("\n".join("abcdefg"))
    assert sorted(fetch.fetch("vg-hub", attributes=given)["vocabularies"]) == ["attributes", "objects"]
    assert RegionDetector.load("vg-hub", device="cpu").attribute_names == list("abcdefg")


def test_a_bare_file_in_the_weights_folder_gets_a_folder(folder: Path, native_state: MakeState) -> None:
    folder.mkdir()
    torch.save(native_state(), folder / "bua-caffe-frcn-r101-k10-100.pth")
    before = RegionDetector.load("vg-caffe", device="cpu").identity()
    assert fetch.fetch("vg-caffe")["file"] == str(folder / "vg-caffe" / "model.safetensors")
    assert RegionDetector.load("vg-caffe", device="cpu").identity() == before


def test_a_full_cache_needs_no_network(hub: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.fetch("vg-hub")
    shutil.rmtree(folder / "vg-hub")
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch.fetch("vg-hub")["name"] == "vg-hub"
    assert len(hub.requests) == asked


def test_a_damaged_cache_is_noticed(hub: Server, folder: Path, tmp_path: Path) -> None:
    fetch.fetch("vg-hub")
    shutil.rmtree(folder / "vg-hub")
    blob = next(tmp_path.glob("hub/**/snapshots/*/pytorch_model.bin")).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    assert "it is damaged" in refusal(lambda: fetch.fetch("vg-hub"))


@pytest.mark.parametrize("name", ["auto", "vg-hub"])
@pytest.mark.parametrize("absent", ["offline", "no server"])
def test_without_a_network_the_ways_are_named(
    name: str,
    absent: str,
    folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if absent == "no server":
        request.getfixturevalue("online")
        monkeypatch.setenv("HF_ENDPOINT", closed_port())
    message = refusal(lambda: RegionDetector.load(name, device="cpu"))
    assert ("HF_HUB_OFFLINE" in message) == (absent == "offline")
    for way in ("weights fetch vg-hub", "--detector PATH", "--detector toy", str(folder)):
        assert way in message
    assert ("bua-caffe-frcn-r101-k10-100.pth" in message) == (name == "auto")
    assert not caplog.records
    assert not folder.exists()


def test_a_hub_without_the_repository(hub: Server, folder: Path) -> None:
    hub.files.clear()
    assert "cannot fetch unc-nlp/frcnn-vg-finetuned" in refusal(lambda: fetch.fetch("vg-hub"))
    assert not folder.exists()
