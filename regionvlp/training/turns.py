"""How the sources of a run take turns: their loaders, and what training sees of each.

In: opened sources, a configuration. Out: loaders in the order of their turns; a description of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regionvlp.data.mixing import MixedPairs
from regionvlp.data.pairs import Pairs
from regionvlp.training.config import RunConfig
from regionvlp.training.distributed import World
from regionvlp.training.loaders import Loader, RoundRobin
from regionvlp.training.randomness import mix
from regionvlp.training.sampler import EpochSampler, MixSampler, shares_of


@dataclass(frozen=True)
class Visits:
    """What training sees of a source.

    Attributes:
        name: of the source. size: its samples.
        batch: of them in a step that it has part in.
        pairs: of them in an epoch.
    """

    name: str
    size: int
    batch: int
    pairs: int

    @property
    def passes(self) -> float:
        """Over the source in an epoch."""
        return self.pairs / self.size


def loaders_of(datasets: Sequence[Pairs], config: RunConfig, world: World, stage: int = 0) -> list[Loader]:
    """A loader for each source, or one for all of them where batches are mixed.

    Args:
        datasets, config, world: of the run.
        stage: whose order it is; see :func:`seed_of`.

    Raises:
        InputError: a source is smaller than its batch. ConfigError: a batch does not divide evenly.
    """
    sources = config.data.sources
    train = config.train.model_copy(update={"seed": seed_of(config, stage)})
    unreadable = config.data.unreadable
    if train.turns == "mix" and len(datasets) > 1:
        weights = [source.weight or len(data) for source, data in zip(sources, datasets, strict=True)]
        shares = shares_of(train.batch_size, weights)
        seeds = [mix(train.seed, number) for number in range(len(datasets))]
        passes = [EpochSampler(len(d), n, seed) for d, n, seed in zip(datasets, shares, seeds, strict=True)]
        sampler = MixSampler(passes, train.epoch, world.rank, world.size, train.accumulate)
        return [Loader(MixedPairs(datasets, shares), train, world, "mix", unreadable=unreadable, sampler=sampler)]
    sizes = [source.batch_size for source in sources]
    named = zip(datasets, names_of(config), sizes, strict=True)
    return [Loader(data, train, world, name, n, size, unreadable) for n, (data, name, size) in enumerate(named)]


def seed_of(config: RunConfig, stage: int) -> int:
    """Of what a stage draws: one that began as the first did would see the same samples again, and so never others."""
    return mix(config.train.seed, stage) if stage else config.train.seed


def visits(datasets: Sequence[Pairs], config: RunConfig, stream: RoundRobin) -> Iterator[Visits]:
    """What an epoch sees of each source."""
    shares = [share for loader in stream.loaders for share in loader.sampler.shares]
    for dataset, name, share in zip(datasets, names_of(config), shares, strict=True):
        yield Visits(name, len(dataset), share, share * stream.rounds)


def names_of(config: RunConfig) -> list[str]:
    """A name per source for the log: its file's stem, numbered where two agree."""
    stems = [Path(source.captions).stem for source in config.data.sources]
    return [stem if stems.count(stem) == 1 else f"{stem}-{number}" for number, stem in enumerate(stems)]

