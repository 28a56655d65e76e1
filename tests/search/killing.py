"""Indexings that are killed at random moments and gone on with, and what is left of them in the end.

In: a way of indexing, a random generator. Out: where the kills fell, and how the index differs from one that was made
at once of what there is now: not at all, if all is well.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from regionvlp.errors import RegionVLPError
from regionvlp.pipelines.bench.fork_server import ForkServer
from regionvlp.pipelines.bench.proc_table import descendants
from regionvlp.search.folder import MANIFEST_NAME, Contents
from regionvlp.store.files import is_temporary
from search.contents import content, differences, left_behind
from search.worlds import WORLD, video, write_shards

IMPORTS = (
    "regionvlp.pipelines.extract",
    "regionvlp.pipelines.index_videos",
    "regionvlp.extract.run.session",
    "regionvlp.shards.hdf5",
    "regionvlp.search.encoders.labels",
    "regionvlp.search.encoders.sentences",
    "regionvlp.search.rank",
    "transformers.models.bert.modeling_bert",
    "own_detectors",
)
WAYS = ("shards", "shards, more", "videos", "videos, more", "videos, discarded")
PHASES = ("start", "settled", "extracting", "extracted", "segment", "segments", "joined", "end")
ENDS_WITHIN = 120.0  # seconds; a command that takes longer counts as hung
_POLL = 0.0005


@dataclass
class Attack:
    """One indexing: killed, perhaps several times, and gone on with to the end."""

    way: str
    kills: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Arena:
    """Where it happens.

    Args:
        folder: for everything; what is in it in the end is what had faults.
        server: starts the commands.
        make_clip: writes a video. encoders: what reads the clips.
    """

    def __init__(
        self, folder: Path, server: ForkServer, make_clip: Callable[..., Path], encoders: Sequence[str]
    ) -> None:
        self._folder, self._server, self._encoders = folder, server, encoders
        self._durations: dict[str, float] = {}
        self._wanted: dict[str, dict[str, object]] = {}
        self._count = 0
        folder.mkdir()
        self._before = folder / "before"
        shards, videos = folder / "shards", folder / "videos"
        clips = [video(name, labels) for name, labels in WORLD.items()]
        write_shards(shards, clips[:2])
        write_shards(shards, [video("gone.mp4", ["cat"])], number=7)
        for seed, name in enumerate(("a.mp4", "changed.mp4", "gone.mp4")):
            make_clip(videos / name, seed, frames=20)
        (videos / "broken.mp4").write_bytes(b"\x00" * 200)
        for way in ("shards", "videos"):
            self._run(self._arguments(way, self._before / way), folder / "before.log")
        shutil.rmtree(shards)
        write_shards(shards, [video("park/dog.mp4", ["tree"]), *clips[1:3]])
        write_shards(shards, clips[3:], number=1)
        make_clip(videos / "changed.mp4", 9, frames=30)
        make_clip(videos / "sub" / "new.mp4", 10, frames=16)
        (videos / "gone.mp4").unlink()

    def attack(self, way: str, rng: random.Random) -> Attack:
        """Kills an indexing and goes on with it. Its folder is kept where it has faults."""
        attack = Attack(way)
        wanted, duration = self._undisturbed(way)
        out = self._new_folder(way)
        log, arguments = out.with_suffix(".log"), self._arguments(way, out)
        for _ in range(rng.choice((1, 1, 2, 3))):
            with self._started(arguments, log) as run:
                self._wait_for_a_moment(out, run, duration, rng)
                if run.code() is not None:
                    break
                for pid in [run.pid, *descendants(run.pid)] if rng.random() < 0.7 else [run.pid]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                run.code(ENDS_WITHIN)
            attack.kills.append(phase(out))
            attack.faults += _unreadable(out)
        code = self._run(arguments, log)
        attack.faults += [f"the last run ended with {code}"] if code else self._differences(way, out, wanted)
        if not attack.faults:
            shutil.rmtree(out)
            log.unlink()
        return attack

    def _undisturbed(self, way: str) -> tuple[dict[str, object], float]:
        """What an index of what there is now has to hold; and the seconds that the way takes undisturbed."""
        if way not in self._durations:
            out, source = self._new_folder(way), way.partition(",")[0]
            begun = time.monotonic()
            assert self._run(self._arguments(way, out), out.with_suffix(".log")) == 0
            self._durations[way] = time.monotonic() - begun
            fresh = self._folder / f"fresh-{source}"
            if not fresh.exists():
                assert self._run(self._arguments(source, fresh), out.with_suffix(".log")) == 0
            self._wanted[way] = content(fresh)
            assert not self._differences(way, out, self._wanted[way])
            shutil.rmtree(out)
        return self._wanted[way], self._durations[way]

    def _differences(self, way: str, out: Path, wanted: dict[str, object]) -> list[str]:
        faults = differences(wanted, content(out))
        left = left_behind(out)
        if way == "videos, discarded":
            left += [path.name for path in (out / "regions").iterdir() if path.is_dir()]
        return faults + [f"{name} was left behind" for name in left]

    def _arguments(self, way: str, out: Path) -> list[str]:
        source, _, how = way.partition(", ")
        arguments = ["index", f"--{source}", str(self._folder / source), "--out", str(out), "--prune"]
        for name in self._encoders:
            arguments += ["--encoder", name]
        if source == "videos":
            arguments += ["--detector", "own_detectors:Halves", "--window", "1s", "--stride", "500ms", "--frames", "2"]
        return [*arguments, "--discard-regions"] if how == "discarded" else arguments

    def _new_folder(self, way: str) -> Path:
        self._count += 1
        out = self._folder / f"run-{self._count:04d}"
        source, _, how = way.partition(", ")
        if how == "more":
            shutil.copytree(self._before / source, out)
        return out

    def _run(self, arguments: list[str], log: Path) -> int | None:
        with self._started(arguments, log) as run:
            return run.code(ENDS_WITHIN)

    @contextmanager
    def _started(self, arguments: list[str], log: Path) -> Iterator[_Run]:
        run = _Run(self._server, self._server.start(arguments, log))
        try:
            yield run
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.code(ENDS_WITHIN)

    def _wait_for_a_moment(self, out: Path, run: _Run, duration: float, rng: random.Random) -> None:
        """Waits: anywhere in the duration of a run, or until the folder is in a phase that is chosen, and a little."""
        if rng.random() < 0.3:
            time.sleep(rng.random() * duration)
            return
        wanted = rng.choice(PHASES[1:])
        while phase(out) != wanted and run.code() is None:
            time.sleep(_POLL)
        time.sleep(rng.random() * duration / 20)


class _Run:
    """A command that was started."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self._code: int | None = None

    def code(self, seconds: float = 0) -> int | None:
        """How it ended; None where it runs on after so long."""
        if self._code is None:
            self._code = self._server.wait(self.pid, seconds)
        return self._code


def phase(out: Path) -> str:
    """What an indexing is about: nothing yet, clips settled, extracting, extracted, a segment half written, segments
    there, segments joined, or everything done."""
    try:
        names = set(os.listdir(out))
        contents = Contents.read(out)
    except FileNotFoundError:
        return "start"
    if MANIFEST_NAME not in names:
        return "start"
    if any(is_temporary(name) and name.startswith("segment-") for name in names):
        return "segment"
    regions = out / "regions"
    undone = sorted({path.stem for path in regions.glob("part-*.parquet")} - set(contents.done))
    if undone:
        shards = regions / undone[0]
        if not shards.exists():
            return "settled"
        return "extracted" if list(shards.glob("shard-*.json")) else "extracting"
    if not contents.segments:
        return "start"
    return "end" if contents.presence else "joined" if len(contents.segments) == 1 else "segments"


def _unreadable(out: Path) -> list[str]:
    """What keeps an index, such as a kill left it, from being opened and read to the last row."""
    try:
        if (out / MANIFEST_NAME).exists() and Contents.read(out).segments:
            content(out)
    except RegionVLPError as error:
        return [f"cannot be read after a kill: {error}"]
    return []
