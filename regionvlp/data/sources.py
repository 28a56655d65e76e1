"""Opens what the ``data`` section of a configuration names: captions, shards, and their join."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from regionvlp.data.captions import Caption, load_captions, resolve_videos
from regionvlp.data.dataset import Collate, RegionTextDataset
from regionvlp.data.settings import DataSettings, RegionDataSettings, SourceSettings
from regionvlp.data.text.content_words import ContentWords, WordWeights
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError
from regionvlp.regions import VideoRegions

logger = logging.getLogger(__name__)

UNREADABLE = 0.5  # a caption of which a larger share of the tokens is unknown says nothing to the model
TOLERATED = 0.01  # share of such captions that is only warned about
CHECKED = 20_000  # captions looked at, spread over the table


def open_source(
    source: SourceSettings, settings: DataSettings, *, training: bool, seed: int = 0, frames: int | None = None
) -> RegionTextDataset:
    """Reads the captions of a source, opens its shards, and joins the two.

    Args:
        source, settings: what to read, and what a sample is made of.
        training: draw frames and captions, from ``seed``.
        frames: F in place of the settings', where the source has none of its own.

    Raises:
        InputError: captions or shards cannot be read, or annotated videos are missing from the shards.
        ShardError: the folder is not a whole shard folder.
    """
    from regionvlp.shards import open_shards

    assert isinstance(settings, RegionDataSettings)
    captions = load_captions(source.captions, format=source.format, split=source.split, queries=source.queries)
    shards = open_shards(source.shards)
    captions = resolve_videos(captions, shards.video_ids, allow_missing=source.allow_missing)
    regions: Mapping[str, VideoRegions] = shards
    if settings.clips.in_memory:
        regions = {video_id: shards[video_id] for video_id in {caption.video_id: None for caption in captions}}
    return RegionTextDataset(captions, regions, settings, training=training, seed=seed, frames=source.frames or frames)


def collate_for(
    settings: DataSettings, tokenizer: TextTokenizer, weigh_by: Sequence[Caption] = (), *, trim: bool = False
) -> Collate:
    """The collate function that the settings describe.

    Args:
        settings, tokenizer: of the run.
        weigh_by: captions by whose frequencies words are weighed; without any, batches hold no weights.
        trim: leave out region slots that are padding throughout a training batch, where no loss counts them.

    Raises:
        InputError: nouns and verbs are asked for, and there is no tagger to find them.
    """
    selecting = settings.words == "nouns_and_verbs"
    content = ContentWords() if weigh_by or selecting else None
    return Collate(
        tokenizer,
        settings.text_length,
        settings.text_length if settings.pad_text else None,
        content if selecting else None,
        WordWeights((caption.caption for caption in weigh_by), content) if content and weigh_by else None,
        trim,
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
