"""Who is at work on which shard: claims that workers of any machine take in the folder, and lose when they die.

::

    SHARDS/.claims/shard-00012.json   who has shard 12 and how far they are; gone when it is done
    SHARDS/.claims/plan.json          who is writing the plan

A claim only keeps two workers from doing the same work. Nothing is wrong where both do it: which of them published is
decided by receipts alone, of which exactly one is written first. So a claim may be taken over as soon as its owner
looks dead, and an owner that was only asleep finds out before it publishes.

A claim is made with a hard link, of several at once by exactly one. Its owner then writes into that same file every few
seconds; whoever takes it over renames it away first, so that these beats reach a file without a name and can never
revive it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from regionvlp.errors import ShardError
from regionvlp.store.files import create_once, remove_leftovers, temporary_path, temporary_target
from regionvlp.store.locking import folder_lock
from regionvlp.store.names import shard_stem
from regionvlp.store.owner import ProcessName, this_process

log = logging.getLogger(__name__)

CLAIMS_NAME = ".claims"
STALE_AFTER = 300.0  # seconds; file systems over a network may show a beat a minute late
PLAN = "plan"

_BYTES = 1024  # a claim never changes its size, so that writing over it never leaves half of it
_BEAT = 5.0
_CLOCK_GOOD_FOR = 60.0
_UNREADABLE_FOR = 30.0


class ClaimLostError(ShardError):
    """Somebody else has the shard now, so what was made of it here must not be published."""


@dataclass(frozen=True)
class Progress:
    """How far the owner of a claim is; what ``regionvlp status`` adds up.

    Attributes:
        videos, of_videos: handled and planned in the shard.
        frames: written into the shard so far.
        videos_per_second, frames_per_second: over all that this worker did since it began.
    """

    videos: int = 0
    of_videos: int = 0
    frames: int = 0
    videos_per_second: float = 0.0
    frames_per_second: float = 0.0


@dataclass(frozen=True)
class ClaimInfo:
    """What a claim file says.

    Attributes:
        name: ``shard-00012`` or ``plan``.
        token: of this one claim, random; empty where the file cannot be read.
        process: the owner; None where the file cannot be read.
        worker: what the owner calls itself, for people.
        run: shared by all workers that one command started.
        seconds: since it was taken, as far as the clocks of its owner and of the file system agree.
        progress: as of the last beat.
        age: seconds since the last beat by the clock of the file system.
        stale: whether the owner is taken for dead.
    """

    name: str
    token: str
    process: ProcessName | None
    worker: str
    run: str
    seconds: float
    progress: Progress
    age: float
    stale: bool

    @property
    def shard(self) -> int | None:
        """Number of the shard; None for the plan."""
        number = self.name.removeprefix("shard-")
        return int(number) if number != self.name and number.isdigit() else None


@dataclass
class Claim:
    """One claim of this process; made by :meth:`Claims.take`, given back by leaving its ``with`` block.

    Attributes:
        name, token: see :class:`ClaimInfo`.
        recovered: whether it was taken over from one who died.
        progress: to be replaced as work goes on; the next beat tells it.
    """

    name: str
    token: str
    recovered: bool
    progress: Progress
    _claims: Claims = field(repr=False)
    _path: Path = field(repr=False)
    _text: Callable[[Progress], str] = field(repr=False)
    _descriptor: int = field(default=-1, repr=False)

    def mine(self) -> bool:
        """True while the claim is still this process's."""
        return self._claims.token_of(self.name) == self.token

    @contextmanager
    def publishing(self) -> Iterator[bool]:
        """Around everything that changes what the folder holds of this shard; yields whether the folder is locked.

        Raises:
            ClaimLostError: the claim is somebody else's by now.
        """
        with folder_lock(self._claims.folder) as locked:
            if not self.mine():
                raise ClaimLostError(f"{self.name} was taken over by another worker", "nothing is lost: it does it")
            yield locked

    def beat(self) -> None:
        """Says that the owner lives and how far it is. A disk that refuses only makes the claim look older."""
        with contextlib.suppress(OSError):
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR)
            # The first time it might be another's file by now; later it is the same file, wherever that went.
            if _token(_parsed(os.pread(self._descriptor, _BYTES, 0))) == self.token:
                os.pwrite(self._descriptor, self._text(self.progress).encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claims.release(self)


class Claims:
    """The claims of a shard folder, as one worker sees and makes them. Close it, or use it as a context manager.

    Args:
        folder: the shard folder, which has its manifest.
        stale_after: seconds without a beat after which an owner on another machine is taken for dead. One of this
            machine that does not run is so at once.
        worker: how the worker is called in the status.
        run: what all workers of one command have in common.
    """

    def __init__(self, folder: Path, *, stale_after: float = STALE_AFTER, worker: str = "", run: str = "") -> None:
        self.folder = folder
        self._folder = folder / CLAIMS_NAME
        self._stale_after = stale_after
        self._beat_every = min(_BEAT, stale_after / 5)
        self._worker, self._run = worker[:80], run[:40]
        self._held: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._clock = (-_CLOCK_GOOD_FOR, 0.0)  # when it was compared, and what the file system was ahead

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self, name: str, *, of_videos: int = 0) -> Claim | None:
        """Takes a claim; one whose owner died is taken over.

        Args:
            name: see :func:`claim_name`.
            of_videos: videos of the shard, for the status.

        Returns:
            The claim, or None where somebody who seems alive has it.
        """
        recovered = False
        for _ in range(3):  # a second time after a take-over or where it was given back just now
            seen = self._look(name)
            if seen is None:
                claim = self._create(name, recovered, Progress(of_videos=of_videos))
                if claim is not None:
                    return claim
            elif not seen.stale:
                return None
            elif self._remove(name, seen.token):
                log.info("%s is taken over from %s", name, seen.process or "an owner that left no name")
                recovered = True
        return None

    def release(self, claim: Claim) -> None:
        """Gives a claim back; one that was taken over meanwhile is left to its new owner."""
        with self._lock:
            self._held.pop(claim.name, None)
            descriptor, claim._descriptor = claim._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._remove(claim.name, claim.token)

    def all(self) -> list[ClaimInfo]:
        """Every claim of the folder, by name."""
        return [seen for name in self._names() if (seen := self._look(name)) is not None]

    def token_of(self, name: str) -> str | None:
        """Token of a claim as it lies in the folder; None where there is none."""
        values = _read(self._folder / f"{name}.json")
        return None if values is None else _token(values)

    def sweep(self, gone: Callable[[ClaimInfo], bool] = lambda claim: False) -> list[ClaimInfo]:
        """Removes the claims of dead owners with their shards' temporary files, and the folder of claims once empty.

        Args:
            gone: whose claims are to go besides: those of workers that the caller saw dying.

        Returns:
            The claims that were removed.
        """
        removed = []
        for seen in self.all():
            if (seen.stale or gone(seen)) and self._remove(seen.name, seen.token):
                removed.append(seen)
                if seen.shard is not None:
                    remove_temporaries(self.folder, seen.shard)
        with contextlib.suppress(OSError):
            remove_leftovers(self._folder)
            self._folder.rmdir()
        return removed

    def is_old(self, path: Path) -> bool:
        """Whether a file was last written so long ago that its owner, were it one of a claim, would be dead."""
        try:
            return self._now() - path.stat().st_mtime > self._stale_after
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Gives all claims back and ends the beats."""
        self._closing.set()
        for claim in list(self._held.values()):
            self.release(claim)
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _names(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def _create(self, name: str, recovered: bool, progress: Progress) -> Claim | None:
        token, owner, since = secrets.token_hex(8), str(this_process()), round(time.time(), 3)

        def text(progress: Progress) -> str:
            values = {"token": token, "process": owner, "worker": self._worker, "run": self._run, "since": since}
            return json.dumps({**values, **asdict(progress)}).ljust(_BYTES - 1) + "\n"

        path = self._folder / f"{name}.json"
        for _ in range(10):  # whoever gives the last claim back removes the folder of claims
            self._folder.mkdir(exist_ok=True)
            try:
                if not create_once(path, text(progress)):
                    return None
                break
            except FileNotFoundError:
                continue
            except BaseException:
                self._remove(name, token)  # it may be there already
                raise
        claim = Claim(name, token, recovered, progress, self, path, text)
        with self._lock:
            self._held[name] = claim
        if self._thread is None:
            self._thread = threading.Thread(target=self._beats, name="claims", daemon=True)
            self._thread.start()
        return claim

    def _beats(self) -> None:
        while not self._closing.wait(self._beat_every):
            with self._lock:  # a descriptor must not be closed, and its number used anew, in between
                for claim in self._held.values():
                    claim.beat()

    def _look(self, name: str) -> ClaimInfo | None:
        path = self._folder / f"{name}.json"
        values = _read(path)
        try:
            beat = path.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        age = max(0.0, self._now() - beat)
        late = age > self._stale_after
        try:
            assert values is not None
            process = ProcessName.parse(values["process"])
            dead = process is not None and process.dead
            progress = Progress(**{key: values[key] for key in Progress.__dataclass_fields__})
            worker, run, seconds = values["worker"], values["run"], max(0.0, self._now() - values["since"])
            return ClaimInfo(name, _token(values), process, worker, run, seconds, progress, age, late or dead)
        except (AssertionError, KeyError, TypeError):
            # A power cut, or a file system on which it does not appear whole: then it does soon.
            late = age > min(self._stale_after, _UNREADABLE_FOR)
            return ClaimInfo(name, _token(values or {}), None, "", "", age, Progress(), age, late)

    def _now(self) -> float:
        """Seconds since 1970 by the clock that the file system dates files with."""
        compared, ahead = self._clock
        if time.monotonic() - compared >= _CLOCK_GOOD_FOR:
            probe = temporary_path(self._folder / "clock")
            try:
                with probe.open("wb") as file:
                    file.write(b"?")
                ahead = probe.stat().st_mtime - time.time()
            except OSError:  # a folder that may only be read: its reader trusts its own clock
                ahead = 0.0
            finally:
                with contextlib.suppress(OSError):
                    probe.unlink()
            self._clock = (time.monotonic(), ahead)
        return time.time() + ahead

    def _remove(self, name: str, token: str) -> bool:
        """Removes a claim if it still is the one of ``token``; of several at once exactly one succeeds.

        It is renamed first: what was renamed can be looked at in peace, and put back where it is another's.
        """
        path = self._folder / f"{name}.json"
        aside = temporary_path(path)
        try:
            os.rename(path, aside)
        except (FileNotFoundError, NotADirectoryError):
            return False
        values = _read(aside)
        ours = values is not None and _token(values) == token
        if not ours:
            with contextlib.suppress(OSError):  # a third has taken it: the one put aside then finds that it lost
                os.link(aside, path)
        aside.unlink(missing_ok=True)
        return ours


def claim_name(shard: int) -> str:
    """Name of the claim on a shard."""
    return shard_stem(shard)


def remove_temporaries(folder: Path, shard: int) -> None:
    """Removes every unfinished file of a shard, of whatever machine. Only for who has the claim on it."""
    stem = shard_stem(shard)
    for name in os.listdir(folder):
        target = temporary_target(name) if name.startswith(stem) else None
        if target is not None and target.removeprefix(stem)[:1] in (".", "-"):
            (folder / name).unlink(missing_ok=True)


def _token(values: dict[str, Any]) -> str:
    token = values.get("token")
    return token if isinstance(token, str) else ""


def _read(path: Path) -> dict[str, Any] | None:
    """The values of a claim file; empty where it is damaged, None where there is none."""
    try:
        return _parsed(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return {}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
