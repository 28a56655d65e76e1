"""Videos that were taken out of a shard folder for good: ``dropped.json``, which every writer of a shard heeds.

In: ids. Out: the list beside the manifest. A plan goes on naming them, and a run that does a shard again would find
them; with the list they end as failures of the reason ``dropped``, whoever writes the shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from regionvlp.errors import ShardError
from regionvlp.store.files import document_text, read_document, replacing
from regionvlp.store.receipts import Failure

DROPPED_NAME = "dropped.json"
DROPPED = "dropped"  # the reason of such a failure
_VERSION = 1


def read_dropped(folder: Path) -> dict[str, str]:
    """The videos that were dropped, with the time of it (ISO 8601, UTC), in the order in which they were.

    Raises:
        ShardError: the list is damaged, or of a newer version.
    """
    path = folder / DROPPED_NAME
    if not path.exists():
        return {}
    values = read_document(path)
    try:
        if values["schema_version"] != _VERSION:
            raise ShardError(f"{path} was written by a newer regionvlp", "pip install --upgrade regionvlp")
        return {str(video_id): str(when) for video_id, when in values["dropped"].items()}
    except (KeyError, AttributeError):
        raise ShardError(f"{path} is damaged: it is not a list of videos", "restore the file") from None


def note_dropped(folder: Path, video_ids: Iterable[str]) -> None:
    """Adds videos to the list, whole or not at all."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    there = read_dropped(folder)
    video_ids = list(video_ids)
    if all(video_id in there for video_id in video_ids):
        return
    dropped = {**dict.fromkeys(video_ids, now), **there}
    with replacing(folder / DROPPED_NAME) as temporary:
        text = document_text({"schema_version": _VERSION, "dropped": dropped})
        temporary.write_text(text, encoding="utf-8")


def dropped_failure(video_id: str) -> Failure:
    """The row of a video that was dropped."""
    return Failure(video_id, "write", DROPPED, "Dropped", "taken out of these shards for good")
