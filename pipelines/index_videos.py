"""An index straight from a folder of videos: new and changed files are cut into clips, looked at, and indexed.

In: a folder, an index. Out: the index up to date. What is to be done is settled in *parts*: a list of clips that is
written once, the shards extracted from it where an encoder reads regions, and its place among the parts that are done.
A part that was interrupted is gone on with before anything else, so every file is indexed as it was when its part was
settled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from regionvlp.config import load_config
from regionvlp.errors import NothingDoneError
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import open_source
from regionvlp.pipelines.index import REGIONS, check_encoders, say_tokens
from regionvlp.pipelines.output import many
from regionvlp.progress import ProgressBar
from regionvlp.search.build import Built, add_clips
from regionvlp.search.clips import Clip, ShardClips, VideoClips
from regionvlp.search.durations import durations
from regionvlp.search.encoders.base import Encoder
from regionvlp.search.folder import Unread, writing
from regionvlp.search.pictures import Decoding
from regionvlp.search.shots import check_installed, shots
from regionvlp.search.thumbnails import Thumbnails
from regionvlp.search.windows import WHOLE, Stretch, frames_in, windows
from regionvlp.search.writer import IndexWriter
from regionvlp.store.files import replacing
from regionvlp.video.find import IMAGE_SUFFIXES, VideoFile

_PART = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("clip_id", pa.string()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("stamp", pa.string()),
        pa.field("frames", pa.int32()),  # that are looked at
    ]
)


@dataclass
class VideoIndexing:
    """One call of ``regionvlp index --videos``; its options are the attributes."""

    videos: Path
    out: Path
    encoders: list[Encoder]
    detector: str | None
    window: float
    stride: float
    by_shots: bool
    frames: int
    tokens: bool
    thumbnails: bool
    device: str
    console: Console

    def run(self, files: Sequence[VideoFile], *, prune: bool, discard: bool) -> tuple[Built, IndexWriter]:
        """Does what there is to do.

        Args:
            files: all there are in the folder.
            prune: take out the clips of files that are gone.
            discard: delete the shards that are indexed.

        Raises:
            InputError, ConfigError, WeightsError, ShardError: the user's mistakes, and a disk that refuses.
        """
        if self.by_shots:
            check_installed()
        root = self.videos.absolute() if self.videos.is_dir() else self.videos.absolute().parent
        config = self._config()
        cut = {
            "by": "shots" if self.by_shots else "windows",
            "seconds": self.window,
            "stride": self.stride,
            "frames": self.frames,
            "detector": self.detector if self._reads_regions else None,
        }
        built = Built()
        source = {"videos": str(root), "regions": REGIONS}
        with IndexWriter(self.out, self.encoders, tokens=self.tokens, cut=cut, source=source) as writer:
            with writing(self.out):
                (self.out / REGIONS).mkdir(exist_ok=True)
            for part in self._interrupted(writer):
                self._part(part, root, config, writer, built)
            todo = self._todo(files, writer)
            held = sum(map(len, writer.files.values())) - built.added
            self.console.print(f"{many(len(files), 'file')}; {len(todo):,} new, changed or to be tried again")
            if todo:
                self._part(self._settled(todo, writer), root, config, writer, built)
            built.kept = max(0, held - built.removed)
            self._gone(files, writer, built, prune)
            writer.relocate({file.video_id: str(file.path.absolute()) for file in files})
            writer.finish()
            for part in writer.contents.done if discard else ():
                shutil.rmtree(self.out / REGIONS / part, ignore_errors=True)
        return built, writer

    @property
    def _reads_regions(self) -> bool:
        return not all(encoder.reads_pictures for encoder in self.encoders)

    def _config(self) -> ExtractConfig:
        return load_config(
            ExtractConfig,
            {
                "detector": {"name": self.detector or "auto", "device": self.device},
                "video": {"frames": self.frames},
                "shards": {"size": 64},
                "run": {"card": False},
            },
            source="the options",
        )

    def _todo(self, files: Sequence[VideoFile], writer: IndexWriter) -> list[VideoFile]:
        """The files that the index does not hold as they are now."""
        stamps, held = writer.stamps, writer.files
        unread = {row.video_id: row for row in writer.contents.unread}
        todo = []
        for file in files:
            failed = unread.get(file.video_id)
            known = {stamps[clip_id] for clip_id in held.get(file.video_id, ())}
            if failed is not None and failed.stamp == stamp_of(file) and not failed.transient:
                continue
            if failed is not None or known != {stamp_of(file)}:
                todo.append(file)
        return todo

    def _settled(self, files: Sequence[VideoFile], writer: IndexWriter) -> str:
        """Cuts files into clips and writes the list of a new part; its name."""
        rows = []
        with ProgressBar("look at files", "files", "files") as bar:
            bar.begin(len(files))
            for file, cut in zip(files, self._cut(files), strict=True):
                for start, end, frames in cut:
                    clip_id = file.video_id if len(cut) == 1 else f"{file.video_id}@{start:g}s"
                    rows.append((file.video_id, clip_id, start, end, stamp_of(file), frames))
                bar.advance(1, 1)
        columns = zip(zip(*rows, strict=True), _PART, strict=True)
        table = pa.Table.from_arrays([pa.array(values, field.type) for values, field in columns], schema=_PART)
        names = (f"part-{number:05d}" for number in count())
        name = next(name for name in names if not self._list(name).exists() and name not in writer.contents.done)
        with writing(self.out), replacing(self._list(name)) as temporary:
            pq.write_table(table, temporary)
        return name

    def _cut(self, files: Sequence[VideoFile]) -> Iterator[list[tuple[float, float | None, int]]]:
        """The clips of each file: start, end, and how many frames are looked at.

        A picture, and a file that does not tell how long it is, is one.
        """
        of_video = [file.path for file in files if file.path.suffix.lower() not in IMAGE_SUFFIXES]
        found: Iterator[tuple[float | None, list[Stretch]]]
        if self.by_shots:
            found = ((None, cut or WHOLE) for cut in shots(of_video, self.window, self.stride))
        else:
            found = ((length, windows(length, self.window, self.stride)) for length in durations(of_video))
        for file in files:
            length, cut = (None, WHOLE) if file.path.suffix.lower() in IMAGE_SUFFIXES else next(found)
            yield [(*stretch, frames_in(stretch, length, self.window, self.frames)) for stretch in cut]

    def _list(self, part: str) -> Path:
        return self.out / REGIONS / f"{part}.parquet"

    def _interrupted(self, writer: IndexWriter) -> list[str]:
        names = sorted(path.stem for path in (self.out / REGIONS).glob("part-*.parquet"))
        return [name for name in names if name not in writer.contents.done]

    def _part(self, part: str, root: Path, config: ExtractConfig, writer: IndexWriter, built: Built) -> None:
        """Extracts and indexes a part, or what is left of it."""
        rows = pq.read_table(self._list(part)).to_pylist()
        stamps = {row["clip_id"]: row["stamp"] for row in rows}
        files = {row["path"] for row in rows}
        shards = self.out / REGIONS / part
        known = writer.stamps
        with ExitStack() as stack:
            looking = None
            if any(encoder.reads_pictures for encoder in self.encoders):
                # Regions were found in as many frames of every clip.
                fewer = {} if self._reads_regions else {row["clip_id"]: row.get("frames", self.frames) for row in rows}
                looking = stack.enter_context(Decoding(self.frames, self.device.partition(":")[0], fewer))
            source: ShardClips | VideoClips
            if self._reads_regions:
                source = self._extracted(part, shards, root, config, looking)
            else:
                assert looking is not None
                source = VideoClips([_clip(row, root) for row in rows], looking)
            listed = [replace(clip, stamp=stamps[clip.clip_id]) for clip in source.clips()]
            todo = [clip for clip in listed if known.get(clip.clip_id) != clip.stamp]
            say_tokens(writer, len(todo), source.most, self.console)
            bar = stack.enter_context(ProgressBar("index", "clips", "clips"))
            make = stack.enter_context(Thumbnails())
            bar.begin(len(todo))
            unread = add_clips(
                writer, source, todo, built,
                thumbnails=make if self.thumbnails else None,
                on_clips=lambda count: bar.advance(count, count),
            )  # fmt: skip
        failed = {
            clip.clip_id: Failed(error.stage, error.reason, error.message, error.transient) for clip, error in unread
        }
        if isinstance(source, ShardClips):
            failed |= {f.video_id: Failed(f.stage, f.reason, f.message, f.transient) for f in source.failures}
        stale = {old for file in files for old in writer.files.get(file, ())} - (
            {c.clip_id for c in listed} - failed.keys()
        )
        built.removed += writer.remove(stale)
        others = [row for row in writer.contents.unread if row.video_id not in files]
        writer.note(unread=[*others, *_unread(failed, rows)])
        writer.note(done={*writer.contents.done, part})

    def _extracted(
        self, part: str, shards: Path, root: Path, config: ExtractConfig, looking: Decoding | None
    ) -> ShardClips:
        """The regions of a part, extracted as far as they are not there yet."""
        listed = open_source(self._list(part), kind="segments", root=root)
        try:
            with ProgressBar("extract", "clips", "frames") as bar:
                extract_folder(
                    listed, shards, config,
                    on_plan=lambda planned, left: bar.begin(left),
                    on_video=lambda frames: bar.advance(1, frames),
                    on_note=lambda line: self.console.print(line, markup=False),
                )  # fmt: skip
        except NothingDoneError:
            pass  # each has its failure row
        source = ShardClips([shards], root, pictures=looking)
        if source.ids:
            check_encoders(self.encoders, source)
        return source

    def _gone(self, files: Sequence[VideoFile], writer: IndexWriter, built: Built, prune: bool) -> None:
        there = {file.video_id for file in files}
        gone = [clip_id for video_id, clips in writer.files.items() if video_id not in there for clip_id in clips]
        if prune:
            built.removed += writer.remove(gone)
            writer.note(unread=[row for row in writer.contents.unread if row.video_id in there])
        else:
            built.gone = len(gone)


class Failed(NamedTuple):
    """Why a clip could not be indexed."""

    stage: str
    reason: str
    message: str
    transient: bool


def _unread(failed: Mapping[str, Failed], rows: Sequence[dict[str, Any]]) -> list[Unread]:
    """A row for each file of which a clip failed: that of its first one."""
    found: dict[str, Unread] = {}
    for row in rows:
        if (why := failed.get(row["clip_id"])) is not None:
            kept = Unread(row["path"], why.stage, why.reason, why.message, row["stamp"], why.transient)
            found.setdefault(row["path"], kept)
    return list(found.values())


def _clip(row: Mapping[str, Any], root: Path) -> Clip:
    """A clip of a part's list."""
    path = root / row["path"]
    end = -1.0 if row["end"] is None else row["end"]
    return Clip(row["clip_id"], row["path"], str(path) if path.exists() else "", row["start"], end, row["stamp"])


def stamp_of(file: VideoFile) -> str:
    """What changes with a file."""
    return f"{file.bytes}-{file.mtime_ns}"
