"""The names that columns of tables go by, and what each of them means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from regionvlp.errors import InputError, nearest

# Role -> its names, in lower case. Of several columns of one role, the first of these names counts.
VOCABULARY: dict[str, tuple[str, ...]] = {
    # the file
    "path": (
        *("path", "video_path", "clip_path", "filepath", "file_path", "file", "filename", "file_name", "video_file"),
        *("image_path", "relpath", "uri"),
    ),
    # the video or image, by an id or by its file
    "video": (
        *("video_id", "videoid", "video", "clip", "image", "video_name", "image_name", "gif_name", "youtubeid"),
        *("youtube_id", "ytid", "vid"),
    ),
    # an id of its own where another column names the file; else the video
    "id": ("clip_id", "clip_name", "segment_id", "sample_id", "image_id", "id", "key", "uid"),
    "url": ("thumbnailurl", "url", "image_url", "contenturl"),
    "folder": ("page_dir",),  # WebVid: the folder that the clip lies in
    # `name` comes last: WebVid has its captions there
    "caption": (
        *("caption", "captions", "sentence", "sentences", "text", "title", "description", "descriptions"),
        *("golden_caption", "raw_caption", "raw", "comment", "encap", "name"),
    ),
    "caption_id": ("caption_id",),
    "split": ("split", "set", "subset", "partition", "part"),
    "start": (
        *("start", "start_time", "start time", "start_timestamp", "start_sec", "start_seconds", "start_s", "t_start"),
        *("clip_start", "start_ms", "begin", "begin_time", "begin_ms", "time_start", "from"),
    ),
    "end": (
        *("end", "end_time", "end time", "end_timestamp", "end_sec", "end_seconds", "end_s", "t_end", "clip_end"),
        *("end_ms", "stop", "stop_time", "stop_timestamp", "stop_ms", "time_end", "to"),
    ),
    "duration": ("duration", "duration_sec", "duration_seconds", "duration_s", "duration_ms", "length"),
    "times": ("timestamp", "timestamps", "segment", "segments", "clips", "span", "spans"),
    "start_frame": ("start_frame", "frame_start", "begin_frame", "first_frame"),
    "end_frame": ("end_frame", "frame_end", "stop_frame", "last_frame"),
    "fps": ("fps", "frame_rate", "framerate"),
}
# Columns that say nothing here, and tell a header from a first row.
OTHERS = ("page_idx", "label", "labels", "question", "answer", "width", "height", "language", "category")
KNOWN = frozenset(name for names in VOCABULARY.values() for name in names) | frozenset(OTHERS)
_NAMES_A_VIDEO = ("path", "video", "id", "url", "folder")

Columns = Mapping[str, str]  # role -> the name of its column, as the user says


def normal(name: str) -> str:
    """A column's name as the vocabulary has it."""
    return name.strip().lower()


def names_of(role: str, columns: Columns) -> tuple[str, ...]:
    """The names of a role, those of the vocabulary or the one that the user gave.

    Who names the column of the videos means that one alone, whatever else could name one.
    """
    if role in columns:
        return (normal(columns[role]),)
    if role in _NAMES_A_VIDEO and any(other in columns for other in ("path", "video")):
        return ()
    return VOCABULARY[role]


def check_columns(columns: Columns) -> dict[str, str]:
    """The user's names for columns, once every role is known.

    Raises:
        InputError: a role that is none.
    """
    for role in columns:
        if role not in VOCABULARY:
            known = ", ".join(VOCABULARY)
            raise InputError(f"columns: no '{role}' is read", nearest(role, VOCABULARY) or f"columns are {known}")
    return dict(columns)


def shown(names: Iterable[str]) -> str:
    """Some names of columns for a message, each on one line and not too long: they may be cells of a damaged file."""
    plain = [" ".join(name.split()) for name in list(names)[:8]]
    return ", ".join(name if len(name) <= 30 else f"{name[:27]}..." for name in plain) or "nothing"


def parse_columns(text: str | None) -> dict[str, str]:
    """Reads ``ROLE=NAME,ROLE=NAME``, as commands take it.

    Raises:
        InputError: it is not of that form, or a role is none.
    """
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        role, equals, name = part.partition("=")
        if not equals or not name.strip():
            raise InputError(f"columns: '{part}' is not ROLE=NAME", "for example video=clip,caption=words")
        found[role.strip()] = name.strip()
    return check_columns(found)


def no_column(path: str, role: str, found: Iterable[str]) -> InputError:
    """What to say of a table without a column of some role."""
    words = {"video": "names files or videos", "caption": "holds captions"}
    return InputError(
        f"{path} has no column that {words.get(role, f'holds the {role}')} (it has {shown(found)})",
        f"call it {', '.join(VOCABULARY[role][:4])}, or name it: columns {role}=NAME",
    )
