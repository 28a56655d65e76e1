"""``regionvlp serve --watch``: new and changed files of an index's folder are indexed while it is served.

In: an index that was made of a folder of videos. Out: the index up to date, by the command that made it, in a process
of its own: what a damaged file does to it does not reach the server.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from regionvlp.errors import InputError, RegionVLPError
from regionvlp.search.folder import IndexManifest
from regionvlp.video.find import walk_videos

QUIET = 3.0  # seconds without a change after which a file is whole: it may be copied right now
_Listing = frozenset[tuple[str, int, int]]

log = logging.getLogger(__name__)


class Watcher:
    """Looks at the folder of an index.

    Args:
        folder: the index. manifest: its own. device: where detector and encoders run.

    Raises:
        InputError: the index was not made of a folder of videos.
    """

    def __init__(self, folder: Path, manifest: IndexManifest, device: str = "auto") -> None:
        videos = manifest.source.get("videos")
        if not videos or manifest.cut.get("by") not in ("windows", "shots"):
            raise InputError(
                f"{folder} was not made of a folder of videos, so there is nothing to watch",
                "leave --watch out, or make the index with 'regionvlp index --videos DIR'",
            )
        self._videos = Path(videos)
        self._command = update_command(folder, manifest, device)
        self._done: _Listing | None = None
        self._seen: tuple[_Listing, float] | None = None

    def look(self) -> None:
        """Indexes what is new, once the folder has been quiet for three seconds."""
        try:
            now = frozenset(walk_videos(self._videos))
        except RegionVLPError as error:
            log.warning("cannot look at %s: %s", self._videos, error)
            return
        if now == self._done:
            return
        if self._seen is None or self._seen[0] != now:
            self._seen = (now, time.monotonic())
        if time.monotonic() - self._seen[1] < QUIET:
            return
        done = subprocess.run(self._command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):  # 3: every new file has failed, and is told as a row
            log.warning("taking up new files failed: %s", (done.stderr.strip().splitlines() or ["?"])[-1])
            self._seen = (now, time.monotonic() + 10 * QUIET)  # not again at once
            return
        self._done = now


def update_command(folder: Path, manifest: IndexManifest, device: str) -> Sequence[str]:
    """The command that brings an index up to date, as it was made."""
    cut = manifest.cut
    words = [
        sys.executable,
        "-m",
        "regionvlp",
        "index",
        "--videos",
        str(manifest.source["videos"]),
        "--out",
        str(folder),
    ]
    words += ["--window", f"{cut['seconds']}s", "--stride", f"{cut['stride']}s", "--frames", str(cut["frames"])]
    words += ["--detector", str(cut["detector"]), "--device", device]
    words += ["--shots"] if cut["by"] == "shots" else []
    words += ["--tokens"] if any(record.tokens for record in manifest.encoders) else []
    for record in manifest.encoders:
        words += ["--encoder", record.name]
    return words
