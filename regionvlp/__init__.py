"""regionvlp: region features from video, and video-language learning on top of them.

Importing this package is cheap: torch, h5py and PyAV are only imported by the parts that need them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from regionvlp.lazy import exports

if TYPE_CHECKING:
    from regionvlp.checkpoints.evaluate import evaluate as evaluate
    from regionvlp.checkpoints.folder import load_checkpoint as load_checkpoint
    from regionvlp.data.clips.dataset import regions_dataset as regions_dataset
    from regionvlp.regions import VideoRegions as VideoRegions
    from regionvlp.search.index import open_index as open_index
    from regionvlp.shards import open_shards as open_shards
    from regionvlp.training.run import train as train

__version__ = "0.1.0"

__getattr__, __dir__ = exports(
    __name__,
    {
        "regionvlp.checkpoints.evaluate": ["evaluate"],
        "regionvlp.checkpoints.folder": ["load_checkpoint"],
        "regionvlp.data.clips.dataset": ["regions_dataset"],
        "regionvlp.extract": [],
        "regionvlp.losses": [],
        "regionvlp.regions": ["VideoRegions"],
        "regionvlp.search.index": ["open_index"],
        "regionvlp.shards": ["open_shards"],
        "regionvlp.training.run": ["train"],
    },
)


class _FolderMapHint(importlib.abc.MetaPathFinder):
    """Explains the one trap of the folder map.

    ``extract/``, ``pipelines/`` and ``configs/`` stand beside ``regionvlp/`` in a checkout and are installed inside
    it. Python started in the root of a checkout sees ``./regionvlp`` first; unless the install is editable, the
    three are then nowhere to be found. This finder stands last, so it is only asked when everyone else has failed.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in {"regionvlp.extract", "regionvlp.pipelines", "regionvlp.configs"}:
            raise ModuleNotFoundError(
                f"{fullname} is not installed beside {__file__}: in a checkout, run 'pip install -e .' "
                "(or leave the checkout's folder to use an installed wheel)",
                name=fullname,
            )
        return None


if not any(type(finder).__name__ == "_FolderMapHint" for finder in sys.meta_path):
    sys.meta_path.append(_FolderMapHint())
