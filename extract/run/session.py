"""One worker over a shard folder: opened once, then one shard after another. Every launcher runs this and nothing else.

In: a :class:`~regionvlp.extract.run.job.Job`. Out: shards with receipts. A worker takes the claim of a shard, looks
whether it is (still) to be done, does it, and publishes. It knows nothing of other workers but what lies in the folder.
"""

from __future__ import annotations

import enum
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from regionvlp.errors import RegionVLPError
from regionvlp.extract.launch.stopping import Stop
from regionvlp.extract.run.detecting import Detector, class_names, load_detector
from regionvlp.extract.run.job import Job
from regionvlp.extract.run.memory import EVERY, give_back
from regionvlp.extract.run.plan import settle_plan, size_for
from regionvlp.extract.run.renewal import renew
from regionvlp.extract.run.retry import RUNS, DamagedShardError, RetryRule, find_retries, retry_shard
from regionvlp.extract.run.worker import Tools, process_shard
from regionvlp.extract.settings import DEFAULT_SHARD_SIZE, ExtractConfig
from regionvlp.extract.sources import Source, listed, open_pool, refuse_gone
from regionvlp.extract.sources.cached import how_cached
from regionvlp.shards import (
    Claim,
    ClaimLostError,
    Claims,
    Manifest,
    PlanTable,
    Receipt,
    ShardDoneError,
    finished_shards,
    read_plan,
    read_receipts,
    remove_leftovers,
)
from regionvlp.shards.vocabulary import write_vocabulary
from regionvlp.store.claims import claim_name, remove_temporaries
from regionvlp.store.receipts import receipt_path
from regionvlp.store.recovery import set_lost_aside
from regionvlp.video.readers import check_reader

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_RAY_WORKERS = 16  # of which nobody knows beforehand how many there will be
POLL = 0.5  # seconds between two looks at what other workers are doing


class Attempt(enum.Enum):
    """What came of trying to do a shard."""

    DONE = "done"  # by this worker, now
    ELSEWHERE = "elsewhere"  # it was done already, or is by another worker
    TAKEN = "taken"  # another worker is at it
    LEFT = "left"  # it is not to be done


@dataclass(frozen=True)
class Work:
    """What there is to do in the folder when a worker begins.

    Attributes:
        missing: shards without a receipt.
        retries: shards with failures that are to be tried again, with the receipts that hold them.
        planned: videos of the plan.
        videos: videos of ``missing``, and failures of ``retries`` that are tried again.
    """

    missing: list[int]
    retries: dict[int, Receipt]
    planned: int
    videos: int


@dataclass
class Tally:
    """What this worker did so far."""

    videos: int = 0
    frames: int = 0


class Session:
    """A worker, opened. Use it as a context manager.

    Opening it loads the detector and settles the manifest of the folder: of several workers the first writes it, and
    the others check it. Then :meth:`prepare` or :meth:`join` tell it what there is to do, and :meth:`run` does it.

    Args:
        job: see :class:`Job`.
        on_video: called after each video with the number of frames written (0 for a failure).

    Attributes:
        work: what there was to do when it was prepared.
        tally: what it did.
        leave: shards that it must not begin; the launcher may add to it at any time.

    Raises:
        InputError, ConfigError, WeightsError, ShardError: the user's mistakes. Those that can be told without it are
            raised before the folder is touched.
    """

    work: Work
    _plan: PlanTable

    def __init__(self, job: Job, *, on_video: Callable[[int], None] = lambda frames: None) -> None:
        self.job, self._on_video = job, on_video
        self.tally = Tally()
        self.leave: set[int] = set()
        self._on_shard: Callable[[int | None], None] = lambda number: None
        self._stop = Stop()
        self._stack = ExitStack()
        self._rule = RetryRule(job.config.run.retry, RUNS * job.config.video.attempts)
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        job, config = self.job, self.job.config
        detector = load_detector(config.detector)
        pool = stack.enter_context(open_pool(config.video))
        manifest = Manifest.create_or_check(job.out, manifest_of(config, detector, job.source))
        if (names := class_names(detector)) is not None:
            write_vocabulary(job.out, names)
        # What is detected together must not depend on whether memory ran short meanwhile.
        self._tools = Tools(manifest, detector, pool, detector.max_batch, config.video.attempts)
        self._claims = stack.enter_context(
            Claims(job.out, stale_after=config.run.stale_after, worker=job.label, run=job.run)
        )

    def prepare(self, found: pa.Table | None = None) -> None:
        """Puts right what died runs left, settles the plan, and finds out what there is to do.

        Args:
            found: what the source lists. None: it is listed here, and only where the folder has no plan yet.

        Raises:
            ShardError: the folder was made from other videos, or a file of it is damaged.
            InputError: the source cannot be listed, or no planned video is there.
        """
        out = self.job.out
        remove_leftovers(out)
        set_lost_aside(out, self._claims)
        source = self.job.source
        videos = partial(listed, source, None) if found is None else found
        self._plan, changed = settle_plan(out, videos, self._shard_size, self._claims)
        if found is None:
            refuse_gone(source, self._plan)
        else:
            self._plan = renew(out, self._plan, found, changed, self._claims)
        retries = find_retries(out, self._plan, source, self._rule)
        done = set(finished_shards(out))
        mine = self.job.in_order(self._plan.shards())
        missing = [number for number in mine if number not in done]
        self._begin(missing, {number: retries[number] for number in mine if number in retries})

    def _shard_size(self, videos: int) -> int:
        """Videos per shard, where so many are planned."""
        config = self.job.config
        workers = _RAY_WORKERS if config.run.engine == "ray" else self.job.start[1] * self.job.task[1]
        return config.shards.size or size_for(videos, workers)

    def join(self, missing: Sequence[int], retries: Sequence[int]) -> None:
        """Takes the work that another worker of the same command found, in this worker's own order.

        Raises:
            InputError: no planned video is there, on this machine.
        """
        plan = read_plan(self.job.out)
        assert plan is not None, "the other worker has settled it"
        self._plan = plan
        refuse_gone(self.job.source, plan)
        receipts = read_receipts(self.job.out, retries)
        self._begin(self.job.in_order(list(missing)), {receipt.shard: receipt for receipt in receipts})

    def _begin(self, missing: list[int], retries: dict[int, Receipt]) -> None:
        self._since = time.monotonic()
        self.work = Work(missing, retries, len(self._plan), 0)
        videos = sum(map(self._videos_of, (*missing, *retries)))
        self.work = replace(self.work, videos=videos)

    def run(
        self,
        stop: Stop,
        *,
        on_shard: Callable[[int | None], None] = lambda number: None,
        on_elsewhere: Callable[[int], None] = lambda videos: None,
        on_wait: Callable[[int], None] = lambda shards: None,
    ) -> None:
        """Does shards until none is left, or until it is asked to stop.

        Shards that others are at are waited for: should one of them die, its shard is done here.

        Args:
            stop: looked at before every shard, and after every video whether to drop the shard.
            on_shard: called with the number of a shard when it is begun, and with None when that is done.
            on_elsewhere: called with the number of videos of a shard that another worker did.
            on_wait: called with the number of shards waited for, when it begins to wait.
        """
        self._on_shard, self._stop = on_shard, stop
        left = deque([*self.work.missing, *self.work.retries])
        waiting = False
        while left and not stop.asked:
            taken: deque[int] = deque()
            while left and not stop.asked:
                number = left.popleft()
                attempt = self.attempt(number)
                if attempt is Attempt.TAKEN:
                    taken.append(number)
                elif attempt is Attempt.ELSEWHERE:
                    on_elsewhere(self._videos_of(number))
                if attempt is Attempt.DONE:
                    waiting = False
            left.extend(taken)
            if left and not stop.asked:
                if not waiting:
                    on_wait(len(left))
                waiting = True
                stop.wait(POLL)

    def attempt(self, number: int) -> Attempt:
        """Does one shard, unless somebody else has done it or is at it.

        Raises:
            RuntimeError: the detector is broken. ShardError: the disk is.
        """
        if number in self.leave:
            return Attempt.LEFT
        if not self._is_due(number):
            return Attempt.ELSEWHERE
        claim = self._claims.take(claim_name(number), of_videos=self._videos_of(number))
        if claim is None:
            return Attempt.TAKEN
        with claim:
            if not self._is_due(number):
                return Attempt.ELSEWHERE
            remove_temporaries(self.job.out, number)
            self._on_shard(number)
            attempt = self._do(number, claim)
            self._on_shard(None)  # not after an exception: then this is the shard that the worker dies on
        return attempt

    def _do(self, number: int, claim: Claim) -> Attempt:
        out, rows, source, tools = self.job.out, self._plan.rows(number), self.job.source, self._tools
        publishing, on_video = claim.publishing(), self._counting(claim)
        try:
            if number in self.work.retries:
                old = self.work.retries[number]
                retry_shard(out, old, rows, source, tools, self._rule, publishing=publishing, on_video=on_video)
            else:
                process_shard(out, number, rows, source, tools, publishing=publishing, on_video=on_video)
        except ClaimLostError as error:
            log.info("%s", error.message)
            return Attempt.TAKEN
        except ShardDoneError:
            return Attempt.ELSEWHERE
        except DamagedShardError as error:
            log.warning("%s", error)
            return Attempt.LEFT
        except RegionVLPError:
            # Who took the shard over has removed our half of it, which looks like a broken disk from here.
            if claim.mine():
                raise
            return Attempt.TAKEN
        return Attempt.DONE

    def _is_due(self, number: int) -> bool:
        path = receipt_path(self.job.out, number)
        if number not in self.work.retries:
            return not path.exists()
        return path.exists() and Receipt.read(path) == self.work.retries[number]

    def _videos_of(self, number: int) -> int:
        if number in self.work.retries:
            return sum(map(self._rule.wants, self.work.retries[number].failures))
        return self._plan.count(number)

    def _counting(self, claim: Claim) -> Callable[[int], None]:
        def count(frames: int) -> None:
            self.tally.videos += 1
            self.tally.frames += frames
            seconds = max(time.monotonic() - self._since, 1e-6)
            claim.progress = replace(
                claim.progress,
                videos=claim.progress.videos + 1,
                frames=claim.progress.frames + frames,
                videos_per_second=round(self.tally.videos / seconds, 4),
                frames_per_second=round(self.tally.frames / seconds, 4),
            )
            self._on_video(frames)
            if self.tally.videos % EVERY == 0:
                give_back()
            if self._stop.dropped:
                raise KeyboardInterrupt

        return count


def manifest_of(config: ExtractConfig, detector: Detector, source: Source) -> Manifest:
    """What all shards of an extraction have in common."""
    video = {
        "reader": check_reader(config.video.decoder),
        "sampling": "uniform",
        "max_seconds": config.video.max_seconds,
    }
    if source.kind == "frames":
        video = how_cached(source)
    return Manifest(
        format=config.shards.format,
        dtype=config.shards.dtype,
        frames=config.video.frames,
        regions=config.detector.regions,
        feature_width=detector.feature_width,
        shard_size=config.shards.size or DEFAULT_SHARD_SIZE,
        detector=detector.identity(),
        video=video,
    )
