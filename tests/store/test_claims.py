"""Claims: one owner at a time, taken over from the dead, and never in the way of what is published."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.regions import VideoRegions
from regionvlp.shards import ClaimLostError, Claims, Manifest, ShardWriter, open_shards, verify
from regionvlp.store import claims as claims_module
from regionvlp.store.claims import CLAIMS_NAME
from regionvlp.store.files import temporary_path
from regionvlp.store.locking import folder_lock
from regionvlp.store.owner import ProcessName, this_host, this_process
from regionvlp.store.publication import Publication

NAME = "shard-00003"


@pytest.fixture
def folder(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> Path:
    Manifest.create_or_check(tmp_path / "set", make_manifest())
    return tmp_path / "set"


@pytest.fixture
def claims(folder: Path) -> Iterator[Claims]:
    with Claims(folder, worker="me") as mine:
        yield mine


def rewrite(folder: Path, name: str = NAME, **values: object) -> None:
    """Changes a claim file as its owner would, keeping the time of its last beat."""
    path = folder / CLAIMS_NAME / f"{name}.json"
    beat = path.stat()
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    os.utime(path, ns=(beat.st_atime_ns, beat.st_mtime_ns))


def grow_old(folder: Path, seconds: float, name: str = NAME) -> None:
    path = folder / CLAIMS_NAME / f"{name}.json"
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def dead_process() -> ProcessName:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return ProcessName(this_host(), child.pid, 1)


def test_one_at_a_time(folder: Path, claims: Claims) -> None:
    with Claims(folder, worker="other") as others:
        mine = claims.take(NAME, of_videos=7)
        assert mine is not None
        assert mine.mine()
        assert others.take(NAME) is None
        (seen,) = others.all()
        assert (seen.name, seen.shard, seen.worker, seen.stale) == (NAME, 3, "me", False)
        assert seen.process == this_process()
        assert seen.progress.of_videos == 7
        claims.release(mine)
        assert not mine.mine()
        assert others.take(NAME) is not None
    assert os.listdir(folder) == ["manifest.json"]


def test_beats_tell_progress_and_keep_a_claim_fresh(folder: Path) -> None:
    with Claims(folder, stale_after=0.5) as claims, Claims(folder) as others:
        mine = claims.take(NAME, of_videos=9)
        assert mine is not None
        mine.progress = claims_module.Progress(videos=4, of_videos=9, frames=32, frames_per_second=1.5)
        grow_old(folder, 100)
        deadline = time.monotonic() + 20
        while (seen := others.all()[0]).progress.videos != 4 or seen.age > 10:
            assert time.monotonic() < deadline, "no beat"
            time.sleep(0.02)
        assert seen.progress == mine.progress


@pytest.mark.parametrize("age", [0, 100_000])
def test_a_dead_process_of_this_machine_loses_its_claim_at_once(folder: Path, claims: Claims, age: float) -> None:
    with Claims(folder) as others:
        lost = others.take(NAME)
        assert lost is not None
        rewrite(folder, process=str(dead_process()))
        grow_old(folder, age)
        mine = claims.take(NAME)
        assert mine is not None
        assert mine.recovered
        assert not lost.mine()
        with pytest.raises(ClaimLostError), lost.publishing():
            pytest.fail("published without a claim")
        lost.beat()
        others.release(lost)
        assert mine.mine()


def test_another_process_with_the_same_number_is_not_the_owner(folder: Path, claims: Claims) -> None:
    """Containers give the same process ids again."""
    with Claims(folder) as others:
        assert others.take(NAME) is not None
        rewrite(folder, process=str(ProcessName(this_host(), os.getpid(), this_process().started + 1)))
        assert claims.take(NAME) is not None


@pytest.mark.parametrize(("age", "taken"), [(0, False), (250, False), (350, True)])
def test_another_machine_is_dead_when_it_was_silent_for_long(
    folder: Path, claims: Claims, age: float, taken: bool
) -> None:
    with Claims(folder) as others:
        assert others.take(NAME) is not None
        rewrite(folder, process="elsewhere_123456-1s5")
        grow_old(folder, age)
        assert [seen.stale for seen in claims.all()] == [taken]
        assert (claims.take(NAME) is not None) is taken


def test_the_clock_of_the_file_system_counts(folder: Path, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock runs an hour ahead does not take others for dead."""
    with Claims(folder) as others:
        assert others.take(NAME) is not None
        rewrite(folder, process="elsewhere_123456-1s5")
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3600)
        assert claims.take(NAME) is None


def test_a_claim_that_cannot_be_read_is_judged_by_its_age(folder: Path, claims: Claims) -> None:
    (folder / CLAIMS_NAME).mkdir()
    for text in ("", "{", "[]", '{"token": 3}'):
        (folder / CLAIMS_NAME / f"{NAME}.json").write_text(text)
        assert claims.take(NAME) is None
        grow_old(folder, 1000)
        claim = claims.take(NAME)
        assert claim is not None
        claims.release(claim)


def test_of_those_who_see_it_stale_one_takes_it_over(folder: Path) -> None:
    """Threads stand for workers; again and again they all find the same dead owner."""
    with Claims(folder) as first:
        takers = [Claims(folder, worker=str(i)) for i in range(4)]
        for _ in range(25):
            assert first.take(NAME) is not None
            rewrite(folder, process=str(ProcessName(this_host(), 4194305, 1)))
            barrier, got = threading.Barrier(len(takers)), []

            def contend(taker: Claims, barrier: threading.Barrier = barrier, got: list[Any] = got) -> None:
                barrier.wait()
                if claim := taker.take(NAME):
                    got.append((taker, claim))

            threads = [threading.Thread(target=contend, args=(taker,)) for taker in takers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # Where one was put aside by mistake and could not be put back, its owner knows.
            assert [claim.mine() for _, claim in got].count(True) == 1
            for taker, claim in got:
                taker.release(claim)
            assert os.listdir(folder / CLAIMS_NAME) == []
        for taker in takers:
            taker.close()


def test_a_claim_renamed_by_mistake_is_put_back(folder: Path, claims: Claims) -> None:
    mine = claims.take(NAME)
    assert mine is not None
    with Claims(folder) as others:
        assert not others._remove(NAME, "the token of an owner before")
    assert mine.mine()
    assert len(os.listdir(folder / CLAIMS_NAME)) == 1


def test_what_the_dead_left_is_swept(folder: Path, claims: Claims) -> None:
    with Claims(folder) as others, Claims(folder) as living:
        assert others.take(NAME) is not None
        assert living.take("shard-00004") is not None
        rewrite(folder, process="elsewhere_123456-1s5")
        grow_old(folder, 1000)
        left = folder / "shard-00003.h5.elsewhere_123456-1s5n0.tmp"
        other = folder / "shard-00033.h5.elsewhere_123456-1s5n0.tmp"
        for path in (left, other):
            path.touch()
        assert [claim.name for claim in claims.sweep()] == [NAME]
        assert not left.exists()
        assert other.exists()
        assert os.listdir(folder / CLAIMS_NAME) == ["shard-00004.json"]
        assert [claim.name for claim in claims.sweep(lambda claim: claim.shard == 4)] == ["shard-00004"]
        assert not (folder / CLAIMS_NAME).exists()


def test_the_lock_keeps_others_out_for_a_moment(folder: Path) -> None:
    order = []

    def second() -> None:
        with folder_lock(folder) as locked:
            order.append(("second", locked))

    thread = threading.Thread(target=second)
    with folder_lock(folder) as locked:
        thread.start()
        thread.join(0.2)
        order.append(("first", locked))
    thread.join()
    assert order == [("first", True), ("second", True)]


def video(make_video: Callable[..., VideoRegions], filling: float) -> VideoRegions:
    made = make_video("x.mp4")
    made.features[made.mask()] = filling
    return made


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_two_writers_of_one_shard_end_with_one_pair(
    folder: Path, make_video: Callable[..., VideoRegions], monkeypatch: pytest.MonkeyPatch, same: bool, links: bool
) -> None:
    """Without claims and locks: the second publishes its data between the first one's data and receipt."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    manifest = Manifest.read(folder)
    with ShardWriter(folder, 3, manifest) as one, ShardWriter(folder, 3, manifest) as two:
        one.add(video(make_video, 1.0))
        two.add(video(make_video, 1.0 if same else 2.0))
        publish = Publication._publish_data

        def publish_both(publication: Publication[Any], *arguments: Any) -> str:
            name = publish(publication, *arguments)
            if publication is one._publication:
                two.finish()
            return name

        monkeypatch.setattr(Publication, "_publish_data", publish_both)
        with pytest.raises(Exception, match="done already"):
            one.finish()
    assert verify(folder) == []
    assert np.all(open_shards(folder)["x.mp4"].features.max() == (1.0 if same else 2.0))
    assert len(os.listdir(folder)) == 3


def race(folder: Path, number: int, barrier: Any, make_video: Callable[..., VideoRegions]) -> None:
    with ShardWriter(folder, 3, Manifest.read(folder)) as writer:
        writer.add(video(make_video, float(number)))
        barrier.wait(30)
        try:
            writer.finish()
        except Exception as error:
            os._exit(0 if "done already" in str(error) else 1)
    os._exit(10)


def test_processes_that_publish_one_shard_at_once(folder: Path, make_video: Callable[..., VideoRegions]) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        barrier = context.Barrier(4)
        children = [context.Process(target=race, args=(folder, n, barrier, make_video)) for n in range(1, 5)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        codes = sorted(child.exitcode or 0 for child in children)
        assert codes == [0, 0, 0, 10]
        assert verify(folder) == []
        for path in folder.glob("shard-*"):
            path.unlink()


def test_temporary_names_tell_machine_process_and_start(tmp_path: Path) -> None:
    one, two = temporary_path(tmp_path / "a"), temporary_path(tmp_path / "a")
    assert one != two
    assert str(this_process()) in one.name
    assert ProcessName.parse(str(this_process())) == this_process()
    assert not this_process().dead
    assert dead_process().dead
    assert not ProcessName("elsewhere_123456", 4194305, 1).dead
