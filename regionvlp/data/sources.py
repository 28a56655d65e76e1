"""Opens what the ``data`` section of a configuration names: captions, clips, and their join."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from typing import Any

from regionvlp.data import parts
from regionvlp.data.captions import Caption, load_captions, resolve_videos
from regionvlp.data.clips.base import VideoIds
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.opening import open_material
from regionvlp.data.pairs import Pairs
from regionvlp.data.settings import DataSettings, SourceSettings
from regionvlp.data.text.content_words import ContentWords, WordWeights
from regionvlp.data.text.reading import TextReader
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError

logger = logging.getLogger(__name__)

UNREADABLE = 0.5  # a caption of which a larger share of the tokens is unknown says nothing to the model
TOLERATED = 0.01  # share of such captions that is only warned about
CHECKED = 20_000  # captions looked at, spread over the table


def open_source(
    source: SourceSettings,
    settings: DataSettings,
    *,
    texts: TextReader | None = None,
    training: bool = False,
    trim: bool = False,
    seed: int = 0,
    frames: int | None = None,
    without: Collection[str] = (),
) -> Pairs:
    """Reads the captions of a source, opens its clips, and joins the two.

    Of a source that holds clips out, evaluation sees these alone; training sees its ``subset`` of what it may see.

    Args:
        source, settings: what to read, and what a sample is made of.
        texts: reads captions; only training needs it.
        training: draw frames and, with ``pairs: per_video``, captions.
        trim: leave out what is padding throughout a batch, where no loss counts it.
        seed: of the draws.
        frames: F in place of the settings', where the source has none of its own.
        without: ids of clips that training leaves out, since they are evaluated on.

    Raises:
        InputError: captions or videos cannot be read, annotated videos are missing, or no clip is left.
        ShardError: the folder is not a whole shard folder. ConfigError: the model reads another kind of clips.
    """
    captions = load_captions(
        source.captions, format=source.format, split=source.split, queries=source.queries, columns=source.columns,
        training=training,
    )  # fmt: skip
    clip, material = settings.clips, open_material(source, settings.clips)
    annotated = len(captions.video_ids)
    captions = resolve_videos(captions, material.ids, allow_missing=source.allow_missing, failures=material.failures)
    if training:
        clips_before = len(captions.video_ids)
        captions = parts.without(captions, without)
        if not source.held_out and (left_out := clips_before - len(captions.video_ids)):
            logger.warning("%s: %d clips are left out, since another source holds them out", source.captions, left_out)
        captions = parts.subset(captions, source.subset) if source.subset else captions
    elif source.held_out:
        captions = parts.held_out(captions, source.held_out)
        annotated = len(captions.video_ids)  # of that part
    clips = material.clips(VideoIds(captions.video_ids), trim=trim)
    choice = FrameChoice(source.frames or frames or clip.frames, clip.sampling)
    most = clips.most_frames()
    if training and most is not None and most < choice.frames:
        held = "its shards hold" if source.shards else f"{source.videos} holds"
        message = f"{source.captions}: {choice.frames} frames a clip are asked for, and {held} at most {most}"
        raise InputError(message, "ask for fewer (frames), or extract more")
    per_video = training and settings.pairs == "per_video"
    identity = {
        "pairs": len(captions),
        "clips": len(clips.ids),
        "captions": _digest(captions.texts, captions.video_ids, captions.video_index),
        "shards" if source.shards else "videos": _digest(material.marks(clips.ids)),
    }
    return Pairs(captions, clips, choice, texts, per_video=per_video, seed=seed, identity=identity, annotated=annotated)


def _digest(*columns: Any) -> str:
    """SHA-256 of columns of strings or numbers, read piece by piece."""
    digest = hashlib.sha256()
    for column in columns:
        for start in range(0, len(column), 50_000):
            piece = column[start : start + 50_000]
            values = piece.to_pylist() if hasattr(piece, "to_pylist") else list(piece)
            digest.update("\0".join(map(str, values)).encode() + b"\0")
        digest.update(b"\1")
    return digest.hexdigest()


def text_reader(settings: DataSettings, tokenizer: TextTokenizer, weigh_by: Sequence[Caption] = ()) -> TextReader:
    """The reader of captions that the settings describe.

    Args:
        settings, tokenizer: of the run.
        weigh_by: captions by whose frequencies words are weighed; without any, batches hold no weights.

    Raises:
        InputError: nouns and verbs are asked for, and there is no tagger to find them.
    """
    selecting = settings.words == "nouns_and_verbs"
    content = ContentWords() if weigh_by or selecting else None
    return TextReader(
        tokenizer,
        settings.text_length,
        settings.text_length if settings.pad_text else None,
        content if selecting else None,
        WordWeights((caption.caption for caption in weigh_by), content) if content and weigh_by else None,
    )


def check_script(captions: Sequence[Caption], tokenizer: TextTokenizer) -> None:
    """Makes sure that the tokenizer can read the captions; a few that it cannot are only logged.

    Raises:
        InputError: of more than one caption in a hundred, over half of the tokens are unknown: another script or
            language, or the wrong tokenizer.
    """
    checked = captions[:: max(1, len(captions) // CHECKED)]
    shares = tokenizer.unknown_share([caption.caption for caption in checked])
    unreadable = [caption for caption, share in zip(checked, shares, strict=True) if share > UNREADABLE]
    if not unreadable:
        return
    message = (
        f"the tokenizer does not know the words of {len(unreadable)} of {len(checked)} captions, "
        f"such as that of {unreadable[0].video_id}"
    )
    if len(unreadable) > TOLERATED * len(checked):
        raise InputError(message, "another script? name a tokenizer that was made for these captions")
    logger.warning(message)
