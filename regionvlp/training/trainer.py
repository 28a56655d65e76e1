"""The training loop: one system, any number of datasets, one process or many.

In: a system (a module whose ``forward(batch)`` returns a dictionary of scalars, and whose ``inputs`` names what it
reads), loaders, settings. Out: a run folder with checkpoints and a log. No model and no loss is known here.

The same settings, seed and starting weights give the same losses. A run that was stopped and resumed gives, on a CPU,
the same weights bit for bit as one that was not: a checkpoint holds the position in the data, every random state and
the values not yet logged, and an evaluation leaves no trace in the random states.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regionvlp.devices import pick_device
from regionvlp.errors import InputError, RegionVLPError
from regionvlp.systems.base import Trainable
from regionvlp.training import saving as checkpoint
from regionvlp.training.best import Best, better, judged_by
from regionvlp.training.distributed import World
from regionvlp.training.interrupts import Interrupts
from regionvlp.training.loaders import Batch, Loader, RoundRobin
from regionvlp.training.logbook import Logbook
from regionvlp.training.memory import naming, naming_workers
from regionvlp.training.optim import build_optimizer, lr_at
from regionvlp.training.randomness import random_state, restore_random_state, seed_everything, undisturbed
from regionvlp.training.scalars import StepScalars
from regionvlp.training.screen import Screen
from regionvlp.training.settings import OptimSettings, TrainSettings, check_warmup, is_due, planned_steps
from regionvlp.training.step import Gradients
from regionvlp.training.timer import StepTimer
from regionvlp.weights.modules import DamagedCheckpointError, load_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: optimizer steps done. total_steps: that its settings ask for.
        best: the best evaluation, if there was any.
        stopped_early: whether ``train.patience`` ended it.
    """

    step: int
    total_steps: int
    best: Best | None
    stopped_early: bool


class Trainer:
    """Trains ``system`` to the end of its settings; see the module's header.

    Args:
        system: moved to the device of ``world``. Of what it returns, everything ending in ``_loss`` is summed.
        loaders: one for each dataset, in the order of their turns.
        train, optim: the settings.
        run_dir: where checkpoints go; an existing run folder.
        world: this process among those of the run; alone on ``train.device`` by default.
        logbook: None for no log; only the main process writes.
        evaluate: given the system in evaluation mode, without gradients, on the main process; returns metrics by name.
        save_extra: writes further files into a checkpoint's folder.
        stage: of the run, from 0; schedule, epochs and their ends count from its first step.
        start: optimizer steps that earlier stages took. best: their best evaluation.

    Raises:
        ConfigError: settings that this machine, the system or the data cannot fulfil.
    """

    def __init__(
        self,
        system: Trainable,
        loaders: Sequence[Loader],
        train: TrainSettings,
        optim: OptimSettings,
        run_dir: Path,
        *,
        world: World | None = None,
        logbook: Logbook | None = None,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        save_extra: Callable[[Path], None] | None = None,
        stage: int = 0,
        start: int = 0,
        best: Best | None = None,
    ) -> None:
        self.world = world or World(device=pick_device(train.device))
        self.system = system.to(self.world.device)
        self.train, self.optim, self.run_dir = train, optim, run_dir
        self.loaders = RoundRobin(loaders, train.samples_per_epoch, train.epoch)
        self.stage, self.start = stage, start
        self.planned = planned_steps(train, self.loaders.steps_per_epoch)  # of this stage
        check_warmup(optim, self.planned)
        self.step = start  # optimizer steps done
        self.best = best
        self._since_best = 0  # evaluations
        self._logbook = logbook if self.world.is_main else None
        self._evaluate, self._save_extra = evaluate, save_extra
        self._scalars, self._timer = StepScalars(self.world), StepTimer()
        self._screen, self._interrupts = Screen(self.world.is_main), Interrupts(speaks=self.world.is_main)
        self._random: list[dict[str, Any]] = []  # states to start fit() with, by rank
        self._evaluated = self._saved = 0  # the steps at which that was last done
        self._saved_at = 0.0  # when, by the monotonic clock
        self.optimizer = build_optimizer(self.system, optim)
        self._gradients = Gradients(self.system, train, self.world)

    def fit(self) -> Outcome:
        """Trains from where the run stands to its end.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
            NonFiniteLossError: a loss became NaN or infinite.
            OutOfMemoryError: naming the settings that decide how much is needed.
        """
        self._begin()
        with ExitStack() as stack:
            stack.callback(self._end)
            stack.enter_context(self._interrupts)
            stack.enter_context(self._screen)
            self._screen.begin(self.step, self.total_steps, self.best)
            self._look_after()  # what an interruption kept from being done
            while not self._ended:
                pairs = self._next_step()
                self._log_if_due()
                self._look_after()
                self._screen.advance(pairs)
                self._heed()
        patience = self.train.patience if self._patience_is_over and self.step < self.total_steps else None
        self._screen.ended(self.step, self.best, patience, self._timer.summary())
        return Outcome(self.step, self.total_steps, self.best, patience is not None)

    @property
    def total_steps(self) -> int:
        """The step that the stage ends with."""
        return self.start + self.planned

    @property
    def _done(self) -> int:
        """Steps of this stage that are done."""
        return self.step - self.start

    @property
    def _ended(self) -> bool:
        return self.step >= self.total_steps or self._patience_is_over

    @property
    def _patience_is_over(self) -> bool:
        return self.train.patience is not None and self._since_best >= self.train.patience

    def train_step(self, *parts: Batch) -> dict[str, torch.Tensor]:
        """Takes one optimizer step over a batch, given whole or in the parts that its gradient is summed from.

        Returns:
            The system's scalars, averaged over the parts, with ``loss`` (the sum of those ending in ``_loss``) and,
            where gradients are clipped, ``grad_norm`` before clipping. They stay on the device.
        """
        with self._naming_memory(len(parts)):
            self.optimizer.zero_grad(set_to_none=True)
            rate = lr_at(self._done, self.optim, self.loaders.steps_per_epoch, self.planned)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            scalars = self._gradients.add(parts)
            if self.optim.clip_norm is not None:
                parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
                scalars["grad_norm"] = nn.utils.clip_grad_norm_(parameters, self.optim.clip_norm).detach()
            self.optimizer.step()
        self.step += 1
        self.system.after_step(self.step)
        if self._done % self.loaders.steps_per_epoch == 0:
            self.system.after_epoch(self._done // self.loaders.steps_per_epoch)
        return scalars

    def _naming_memory(self, parts: int) -> AbstractContextManager[None]:
        return naming(
            f"a step of train.batch_size {self.train.batch_size} in {parts} part{'s' if parts > 1 else ''}",
            self.world.device,
            "lower train.batch_size, raise train.accumulate (a contrast then sees one part at a time), or use more "
            "processes, which share a batch",
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a resumed run needs besides the weights. Every process must call it together.

        Raises:
            NonFiniteLossError: a step since the last log went wrong, so there is nothing worth keeping.
        """
        return {
            "step": self.step,
            "stage": self.stage,
            "start": self.start,
            "total_steps": self.planned,
            "scalars": self._scalars.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loaders": self.loaders.state_dict(),
            "random": self.world.gather(random_state(self.world.device)),
            "best": asdict(self.best) if self.best else None,
            "evaluated": self._evaluated,
            "since_best": self._since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where :meth:`state_dict` was called; the random states are set when :meth:`fit` begins.

        Raises:
            InputError: the datasets changed.
        """
        self.loaders.load_state_dict(state["loaders"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scalars.load_state_dict(state["scalars"])
        assert self.stage == state.get("stage", 0), "the run opens the stage that its checkpoint is of"
        self.step, self.start = state["step"], state.get("start", 0)
        self.best = Best(**state["best"]) if state["best"] else None
        self._say_if_the_rate_jumps(state.get("total_steps", self.planned))
        self._evaluated, self._random = state["evaluated"], state["random"]
        self._since_best = state.get("since_best", 0)

    def _say_if_the_rate_jumps(self, planned: int) -> None:
        """A schedule that reads the length of the run means something else for a run that became longer or shorter."""
        then, now = (lr_at(self._done, self.optim, self.loaders.steps_per_epoch, n) for n in (planned, self.planned))
        if then != now and self.world.is_main:
            logger.warning(
                "the run was planned with %d steps and now has %d: with schedule %s the learning rate goes on at %.3g "
                "instead of %.3g",
                planned, self.planned, self.optim.schedule, now, then,
            )  # fmt: skip

    def resume(self, candidates: Sequence[Path]) -> None:
        """Loads the first readable checkpoint; without any candidates the run starts from its beginning.

        Args:
            candidates: best choice first, as :func:`run_folder.open_run` returns them.

        Raises:
            WeightsError: a checkpoint is of another architecture. InputError: none can be read, or the data changed.
        """
        for path in candidates:
            try:
                checkpoint.check_whole(path)
                state = checkpoint.load_state(path)
                load_weights(self.system, path)
            except DamagedCheckpointError as error:
                if self.world.is_main:
                    logger.warning("%s is damaged, trying the one before: %s", path, error.message)
                continue
            self.load_state_dict(state)
            self._saved = self.step if path == checkpoint.path_of(self.run_dir, self.step) else 0
            self._screen.resumed(self.step, self.total_steps, path)
            return
        if candidates:
            raise InputError(f"{candidates[0]} is damaged, and none before it can be read", "start in another folder")

    def _begin(self) -> None:
        """Puts the run folder and the random states where ``self.step`` says they were."""
        if self.world.is_main:
            checkpoint.set_aside_after(self.run_dir, self.step)
            if self.best and checkpoint.path_of(self.run_dir, self.best.step).is_dir():
                checkpoint.mark_best(self.run_dir, self.best)
        self._saved_at = time.monotonic()
        if self._logbook is not None:
            self._logbook.rewind(self.step)
        if self.world.rank < len(self._random):
            restore_random_state(self._random[self.world.rank], self.world.device)
        else:
            # A new run, or a process that the interrupted run did not have.
            seed_everything(self.train.seed, self.world.rank, self.step)

    def _end(self) -> None:
        self.loaders.close()
        if self._logbook is not None:
            self._logbook.close()

    def _next_step(self) -> int:
        """Takes a step over the next batch; returns how many pairs it had, over all processes."""
        with self._timer.measure("data"), naming_workers():
            loader, parts = self.loaders.next()
        with self._timer.measure("compute"):
            scalars = self.train_step(*parts)
        prefix = f"{loader.name}/" if len(self.loaders.loaders) > 1 else ""
        self._scalars.add(self.step, {prefix + name: value for name, value in scalars.items()})
        self._timer.count(loader.sampler.batch_size)
        return loader.sampler.batch_size

    def _log_if_due(self) -> None:
        if self.step % self.train.log_every and self.step < self.total_steps:
            return
        with self._timer.measure("compute"):  # the copy waits for the GPU
            values = self._scalars.take()
        lap = self._timer.lap()
        epoch = self._done / self.loaders.steps_per_epoch
        rate = self.optimizer.param_groups[0]["lr"]
        left_out = {"data/left_out": float(self.loaders.left_out)} if self.loaders.left_out else {}
        values = {"epoch": epoch, "lr": rate, **values, **left_out, **lap}
        self._screen.logged(values)
        if self._logbook is not None:
            self._logbook.write(self.step, values)

    def _look_after(self) -> None:
        """Evaluates and writes a checkpoint where the step calls for it."""
        if self._done == 0:
            return
        length, at_end = self.loaders.steps_per_epoch, self.step == self.total_steps
        wanted = self._evaluate is not None and self.train.eval_every != "never" and self._evaluated != self.step
        if wanted and (at_end or is_due(self.train.eval_every, self._done, length)):
            self._judge(self._metrics())
            if self._saved == self.step:
                # This evaluation failed before, and the checkpoint written then knows nothing of it.
                self._save(again=True)
        is_best = self.best is not None and self.best.step == self.step
        if self._ended or is_best or is_due(self.train.save_every, self._done, length):
            self._save()

    def _heed(self) -> None:
        """Saves, and stops, where a process was asked to; saves where the main one's clock says that it is time.

        All decide alike, for whatever one process alone would do keeps the others waiting for ever.
        """
        minutes = self.train.save_minutes
        due = self.world.is_main and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        stop, save, due = self.world.any(self._interrupts.stop, self._interrupts.take_save(), due)
        if self._ended:
            return  # and saved
        if stop or save or due:
            self._save()
        if stop or save:
            self._screen.saved(self.step, "asked to stop" if stop else "asked to save (SIGUSR1)")
        if stop:
            raise KeyboardInterrupt

    def _metrics(self) -> dict[str, float]:
        """Evaluates on the main process; a failure there still leaves a checkpoint, for it may come after days."""
        self._scalars.settle()
        values: dict[str, float] | None = None
        failure: BaseException | None = None
        if self.world.is_main:
            try:
                with self._interrupts.at_once():
                    values = self._evaluated_values()
                judged_by(values, self.train.best_metric)
            except BaseException as error:
                # Loader processes get a group's signals too, and die of them before an evaluation does.
                values, failure = None, KeyboardInterrupt() if self._interrupts.stop else error
        values, interrupted = self.world.from_main((values, isinstance(failure, KeyboardInterrupt)))
        if values is not None:
            return values
        self._save()
        if interrupted:
            self._screen.saved(self.step, "asked to stop; its evaluation is done anew")
            raise KeyboardInterrupt
        self.world.agree(failure)
        raise AssertionError("an evaluation without values failed")

    def _evaluated_values(self) -> dict[str, float]:
        assert self._evaluate is not None
        self.system.eval()
        hint = "lower eval.batch_size"
        with undisturbed(self.world.device), torch.no_grad(), naming("an evaluation", self.world.device, hint):
            return dict(self._evaluate(self.system))

    def _judge(self, values: dict[str, float]) -> None:
        """Logs an evaluation, and remembers it where it is the best so far."""
        self._evaluated = self.step
        before, self.best = self.best, better(self.best, self.step, values, self.train)
        self._since_best = self._since_best + 1 if self.best is before else 0
        if self._logbook is not None:
            patience = {} if self.train.patience is None else {"eval/since_best": float(self._since_best)}
            logged = {f"eval/{name}": value for name, value in values.items()}
            self._logbook.write(self.step, {**logged, **patience})
        self._screen.evaluated(self.step, values, judged_by(values, self.train.best_metric), self.best)

    def _save(self, again: bool = False) -> None:
        """Writes a checkpoint, unless that of this step is there; ``again`` where it knew less than is known now.

        Raises:
            InputError: it cannot be written, on the main process; the others end with it.
        """
        if self._saved == self.step and not again:
            return
        state = self.state_dict()
        failure: RegionVLPError | None = None
        if self.world.is_main:
            try:
                self._write(state)
            except RegionVLPError as error:
                failure = error
        self.world.agree(failure)
        self._saved, self._saved_at = self.step, time.monotonic()

    def _write(self, state: dict[str, Any]) -> None:
        if self._saved == self.step:
            checkpoint.renew_state(self.run_dir, self.step, state)
        else:
            checkpoint.save(self.run_dir, self.step, self.system, state, self._save_extra)
        if self.best is not None and self.best.step == self.step:
            checkpoint.mark_best(self.run_dir, self.best)
        checkpoint.prune(self.run_dir, self.train.keep)
