"""Workers on a Ray cluster: an actor per GPU or per so many CPUs, shards as tasks, nodes that come and go.

The driver hands out shards one at a time, each to an actor that has nothing to do, so nothing queues up where a node
may die. What is done is read from receipts: a driver that dies loses its actors and the shards at hand, no more.
Ray comes with the extra ``ray``; it is imported here and nowhere else.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from regionvlp.config import Config
from regionvlp.errors import InputError, RegionVLPError, error_from
from regionvlp.extract.launch.deaths import DEATHS, Deaths
from regionvlp.extract.launch.reports import Reports
from regionvlp.extract.launch.stopping import Stop, on_interrupt
from regionvlp.extract.run.job import Job
from regionvlp.extract.run.session import Attempt, Session, Tally
from regionvlp.shards import Claims
from regionvlp.store.names import MANIFEST_NAME

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

if TYPE_CHECKING:
    import pyarrow as pa

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    raise InputError("the engine 'ray' needs Ray, which is not installed", "pip install 'regionvlp[ray]'") from None

_TICK = 0.2
_LOOK_AGAIN = 2.0  # seconds between two looks at shards that others are at, and at what the cluster offers
_END_LIMIT = 10.0


class RayWorker:
    """The actor: a :class:`Session` behind methods whose answers are plain values.

    What a user can mend comes back as ``{"error": ...}``; any other exception means that the worker is broken.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        self._session = Session(Job.from_dict(job))

    def open(self) -> dict[str, Any]:
        """Loads everything."""
        with _told() as told:
            self._session.__enter__()
            told["opened"] = True
        return told

    def prepare(self, found: pa.Table | None) -> dict[str, Any]:
        """Plans, and returns what there is to do."""
        with _told() as told:
            self._session.prepare(found)
            work = self._session.work
            told["work"] = {"missing": work.missing, "retries": list(work.retries)}
            told.update(planned=work.planned, videos=work.videos)
        return told

    def join(self, missing: list[int], retries: list[int]) -> dict[str, Any]:
        """Takes the work that another worker found."""
        with _told() as told:
            self._session.join(missing, retries)
            told["joined"] = True
        return told

    def attempt(self, shard: int) -> dict[str, Any]:
        """Does a shard: what came of it, and the videos and frames that this worker did for it."""
        with _told() as told:
            before = replace(self._session.tally)
            attempt = self._session.attempt(shard)
            tally = self._session.tally
            told.update(attempt=attempt.value, videos=tally.videos - before.videos, frames=tally.frames - before.frames)
        return told

    def close(self) -> None:
        """Ends the decoders and gives back what is held."""
        self._session.__exit__(None, None, None)


@contextmanager
def _told() -> Iterator[dict[str, Any]]:
    told: dict[str, Any] = {}
    try:
        yield told
    except RegionVLPError as error:
        told["error"] = error.to_dict()


def run_ray(job: Job, found: pa.Table | None, stop: Stop, reports: Reports) -> tuple[Tally, list[int]]:
    """Has actors on a Ray cluster do a job.

    Args:
        job: of all actors together; its folder and its videos must be seen by all nodes under the same paths.
        found: see :meth:`Session.prepare`.
        stop: asks them all to end after the shard at hand.
        reports: see :class:`Reports`.

    Returns:
        What the actors did, and the shards that were left because they kill their workers.

    Raises:
        InputError: there is no such cluster, or no node of it can take a worker. RegionVLPError: the first that an
            actor raised, or none of them can be kept alive.
        KeyboardInterrupt: passed on, after the actors were killed and their claims removed.
    """
    with _cluster(job.config.run.address):
        driver = _Driver(job, found, reports)
        try:
            with on_interrupt(stop, reports.note):
                driver.run(stop)
        finally:
            driver.close()
    return driver.tally, driver.deaths.left


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connects to a cluster, or starts one here; a connection that is there already is used and kept."""
    if ray.is_initialized():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster at '{address or 'this machine'}': {error}", "see 'ray status', or leave --address out"
        ) from None
    try:
        for number, handler in kept.items():  # Ray puts its own in their place, which end the process
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


@dataclass(eq=False)
class _Actor:
    """An actor and what it is doing.

    Attributes:
        slot: its number among the actors that run at a time. label: how it is called in the status.
        ready: whether it can be given shards.
        shard: the one at hand.
    """

    slot: int
    label: str
    handle: Any
    ready: bool = False
    shard: int | None = None


class _Driver:
    def __init__(self, job: Job, found: pa.Table | None, reports: Reports) -> None:
        self._job, self._found, self._reports = job, found, reports
        self._actors: dict[int, _Actor] = {}
        self._calls: dict[Any, _Actor] = {}  # what is being computed, and by whom
        self._waiting: list[_Actor] = []  # loaded, and waiting for the plan
        self._planner: _Actor | None = None
        self._work: dict[str, list[int]] | None = None
        self._todo: deque[int] = deque()
        self._taken: list[int] = []
        self._retired: set[int] = set()
        self._started = 0
        self._looked = float("-inf")
        self._resources = self._ask_for()
        self.tally = Tally()
        self.deaths = Deaths()

    def run(self, stop: Stop) -> None:
        """Hands out shards until all are done; with ``stop`` until those at hand are."""
        while not self._over(stop):
            if time.monotonic() - self._looked >= _LOOK_AGAIN:
                self._looked = time.monotonic()
                self._fill()
                self._todo.extend(self._taken)
                self._taken.clear()
            for actor in list(self._actors.values()):
                if actor.ready and actor.shard is None and self._todo and not stop.asked:
                    self._hand_out(actor, self._todo.popleft())
            if not self._calls:
                time.sleep(_TICK)
                continue
            done, _ = ray.wait(list(self._calls), timeout=_TICK)
            for call in done:
                self._heard(self._calls.pop(call), call)

    def close(self) -> None:
        """Ends the actors, those with a shard at hand at once, and removes the claims that they leave."""
        idle = [actor for actor in self._actors.values() if actor.ready and actor.shard is None]
        with suppress(RayError):
            ray.wait([actor.handle.close.remote() for actor in idle], num_returns=len(idle) or 1, timeout=_END_LIMIT)
        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._sweep({actor.label for actor in self._actors.values()})

    def _over(self, stop: Stop) -> bool:
        busy = any(actor.shard is not None for actor in self._actors.values())
        if stop.asked or self._work is None:
            return stop.asked and not busy
        return not (self._todo or self._taken or busy)

    def _ask_for(self) -> dict[str, float]:
        """What an actor needs. Nodes smaller than what was asked for by default get smaller ones."""
        device, wanted = self._job.config.detector.device, self._job.config.run.cpus_per_worker
        nodes = _nodes()
        gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        if device.startswith("cuda") and not gpus:
            raise InputError("no node of the Ray cluster has a GPU", "use --device cpu")
        if gpus and device != "cpu":
            return {"num_gpus": 1, "num_cpus": 1}
        most = max((node.get("CPU", 0) for node in nodes), default=0)
        if most < 1:
            raise InputError("no node of the Ray cluster has a CPU to give", "see 'ray status'")
        return {"num_gpus": 0, "num_cpus": min(wanted, int(most))}

    def _room(self) -> int:
        """How many actors the cluster has room for now, whatever else runs there."""
        cpus, gpus = self._resources["num_cpus"], self._resources["num_gpus"]
        rooms = [
            (node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else float("inf")) for node in _nodes()
        ]
        return int(sum(min(room) for room in rooms))

    def _fill(self) -> None:
        """Starts actors where there is room and work, and gives up those that wait for room that is gone."""
        room = self._room()
        for actor in [actor for actor in self._actors.values() if not actor.ready][::-1]:
            if len(self._actors) > max(room, 1):
                self._forget(actor)
        busy = sum(actor.shard is not None for actor in self._actors.values())
        useful = room if self._work is None else len(self._todo) + len(self._taken) + busy
        for slot in self._vacant(room)[: max(0, min(room, useful) - len(self._actors))]:
            self._start(slot)

    def _vacant(self, room: int) -> list[int]:
        """Slots in which an actor may be started."""
        return [slot for slot in range(room) if slot not in self._actors and slot not in self._retired]

    def _start(self, slot: int) -> None:
        self._started += 1
        label = f"{self._job.label}/ray-{self._started}"
        detector = self._job.config.detector
        device = "cuda" if detector.device.startswith("cuda") else detector.device
        update: dict[str, Config] = {"detector": detector.model_copy(update={"device": device})}
        video = self._job.config.video
        if video.workers is None:
            cpus = self._job.config.run.cpus_per_worker if self._resources["num_gpus"] else self._resources["num_cpus"]
            update["video"] = video.model_copy(update={"workers": int(cpus)})
        job = replace(self._job, config=self._job.config.model_copy(update=update), worker=label)
        make = ray.remote(RayWorker).options(scheduling_strategy="SPREAD", max_restarts=0, **self._resources)
        actor = _Actor(slot, label, make.remote(job.to_dict()))
        self._actors[slot] = actor
        self._calls[actor.handle.open.remote()] = actor

    def _hand_out(self, actor: _Actor, shard: int) -> None:
        actor.shard = shard
        self._calls[actor.handle.attempt.remote(shard)] = actor

    def _heard(self, actor: _Actor, call: Any) -> None:
        try:
            told = ray.get(call)
        except RayError as error:
            self._died(actor, error)
            return
        match told:
            case {"error": error}:
                raise error_from(error)
            case {"opened": True}:
                self._waiting.append(actor)
            case {"work": work, "planned": planned, "videos": videos}:
                self._work = work
                self._todo.extend([*work["missing"], *work["retries"]])
                self._reports.plan(planned, videos)
                actor.ready = True
            case {"joined": True}:
                actor.ready = True
            case {"attempt": attempt, "videos": videos, "frames": frames}:
                self._attempted(actor, Attempt(attempt), videos, frames)
        self._put_to_work()

    def _put_to_work(self) -> None:
        """Has one of the actors that are loaded plan, and the others join once that is done."""
        if self._work is not None:
            for actor in self._waiting:
                self._calls[actor.handle.join.remote(self._work["missing"], self._work["retries"])] = actor
            self._waiting.clear()
        elif self._planner is None and self._waiting:
            self._planner = self._waiting.pop(0)
            self._calls[self._planner.handle.prepare.remote(self._found)] = self._planner

    def _attempted(self, actor: _Actor, attempt: Attempt, videos: int, frames: int) -> None:
        shard, actor.shard = actor.shard, None
        assert shard is not None
        self.deaths.survived(actor.slot)
        if attempt is Attempt.TAKEN:
            self._taken.append(shard)
        elif attempt is Attempt.DONE:
            self.tally.videos += videos
            self.tally.frames += frames
            for number in range(videos):
                self._reports.video(frames if number == 0 else 0)

    def _died(self, actor: _Actor, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = lines[-1] if isinstance(error, RayTaskError) else lines[0]
        at = "" if actor.shard is None else f" on shard {actor.shard}"
        self._reports.note(f"worker {actor.label} died{at}: {why.strip()}")
        self._forget(actor)
        self._sweep({actor.label})
        again = self.deaths.count(actor.slot, actor.shard)
        if actor.shard in self.deaths.left:
            self._reports.note(f"shard {actor.shard} is left undone: {DEATHS} workers died on it")
        elif actor.shard is not None:
            self._todo.appendleft(actor.shard)
        if not again:
            self._retired.add(actor.slot)
            if not self._actors and not self._vacant(max(self._room(), 1)):
                raise RegionVLPError(
                    f"no worker can be kept alive; the last one died{at}: {why}", "mend that, run again"
                )
        self._put_to_work()
        self._looked = float("-inf")

    def _forget(self, actor: _Actor) -> None:
        del self._actors[actor.slot]
        self._waiting = [other for other in self._waiting if other is not actor]
        self._planner = None if self._planner is actor else self._planner
        self._calls = {call: other for call, other in self._calls.items() if other is not actor}
        with suppress(RayError):
            ray.kill(actor.handle)

    def _sweep(self, labels: set[str]) -> None:
        """Removes the claims of actors that are known to be dead, wherever they ran."""
        if (self._job.out / MANIFEST_NAME).exists():
            with Claims(self._job.out) as claims:
                claims.sweep(lambda claim: claim.run == self._job.run and claim.worker in labels)


def _nodes() -> list[dict[str, float]]:
    """The resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
