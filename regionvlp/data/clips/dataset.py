"""Regions for one's own training loop: :func:`regions_dataset`.

Shape letters: B clips, F frames, R regions per frame, C feature width. ::

    import regionvlp, torch

    dataset = regionvlp.regions_dataset("SHARDS", frames=8, regions=30)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, num_workers=2)
    for batch in loader:
        batch["features"]     # [64, 8, 30, C] half precision as stored; batch["region_mask"] says which are real
        batch["location"]     # [64, 8, 30, 7] where they lie: x1 y1 x2 y2 w h w*h, relative to the frame
        batch["video_id"]     # 64 ids, to find one's own labels by
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.draws import Draws
from regionvlp.data.settings import RegionClipSettings
from regionvlp.errors import InputError
from regionvlp.regions import VideoRegions


class RegionsDataset(Dataset[dict[str, Any]]):
    """Clips of regions by number; made by :func:`regions_dataset`. A batch of a loader is read at once.

    Attributes:
        ids: the videos, by number.
    """

    def __init__(self, clips: RegionClips, choice: FrameChoice, seed: int | None) -> None:
        self.ids: Sequence[str] = clips.ids
        self._clips, self._choice, self._seed, self._epoch = clips, choice, seed, 0

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Makes the draws those of another epoch; before a loader's workers start."""
        self._epoch = epoch

    def __getitem__(self, number: int) -> dict[str, Any]:
        """``features`` [F, R, C], ``location`` [F, R, P], ``region_mask`` [F, R] bool and ``video_id`` of one clip.

        Raises:
            IndexError: there are not so many. UnreadableItemsError: the clip cannot be read.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"clip {number} of {len(self)}")
        return self.__getitems__([number % len(self)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What a loader calls: the clips of a batch, in one read."""
        draws = None if self._seed is None else Draws((self._seed, self._epoch), numbers)
        batch: dict[str, Tensor] = self._clips.read_batch(list(numbers), self._choice, draws)
        return [
            {**{key: values[at] for key, values in batch.items()}, "video_id": self.ids[number]}
            for at, number in enumerate(numbers)
        ]


def regions_dataset(
    shards: str | Path | Mapping[str, VideoRegions],
    ids: Sequence[str] | None = None,
    *,
    frames: int = 8,
    regions: int = 30,
    location: Literal[6, 7] = 7,
    seed: int | None = None,
) -> RegionsDataset:
    """A torch data set of the clips of a shard folder.

    Args:
        shards: the folder, or what holds regions by id, such as ``open_shards(folder)``.
        ids: which videos, in this order; all by default.
        frames: F. A shorter video has its last frame again, with all its regions masked.
        regions: R, the most confident first; slots without a region hold zeros and are masked.
        location: 7 for the paper's location vector, 6 for that of its public code (without the area).
        seed: draw one frame of each of F equal segments, another one every epoch; by default the middle one.

    Raises:
        InputError: there are no shards, or they do not hold a video.
    """
    from regionvlp.shards import open_shards

    if isinstance(shards, str | Path):
        shards = open_shards(shards)
    chosen = list(shards) if ids is None else list(ids)
    if not chosen:
        raise InputError("there is no video to read", "give shards that hold some")
    settings = RegionClipSettings(frames=frames, regions=regions, loc_dim=location)
    return RegionsDataset(RegionClips(shards, chosen, settings), FrameChoice(frames), seed)
