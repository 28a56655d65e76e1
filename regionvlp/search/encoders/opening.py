"""From the name of an encoder to the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regionvlp.errors import InputError, WeightsError
from regionvlp.search.encoders.base import Encoder
from regionvlp.search.folder import EncoderRecord
from regionvlp.weights.hub_models import hub_name

LABELS, HUB = "labels", "hub"


def open_encoder(name: str, device: str = "cpu") -> Encoder:
    """Opens an encoder.

    Args:
        name: ``hub:FOLDER_OR_NAME`` (a model of pictures and sentences, or a checkpoint that somebody shares, such as
            ``hub:owner/name@revision``), ``labels`` (words), ``labels:FOLDER_OR_NAME`` (words joined to a sentence,
            read by a sentence encoder), or the folder of a checkpoint or run.
        device: where models run.

    Raises:
        InputError: there is no such encoder, or what it names is none. WeightsError: its weights cannot be read.
    """
    kind, colon, rest = name.partition(":")
    if name == LABELS:
        from regionvlp.search.encoders.labels import LabelWords

        return LabelWords()
    if kind == LABELS and colon:
        from regionvlp.search.encoders.labels import LabelSentences
        from regionvlp.search.encoders.sentences import open_sentence_encoder

        if not rest:
            raise InputError(f"--encoder {name} names no sentence encoder", "write labels:FOLDER, or labels alone")
        return LabelSentences(open_sentence_encoder(rest), name)
    if kind == HUB and colon:
        return _of_hub(name, device)
    if not Path(name).is_dir():
        raise InputError(
            f"there is no encoder '{name}'",
            "write hub:FOLDER_OR_NAME, labels, labels:FOLDER_OR_NAME, or the folder of a checkpoint or run",
        )
    from regionvlp.search.encoders.checkpoint import open_checkpoint_encoder

    return open_checkpoint_encoder(name, device)


def _of_hub(name: str, device: str) -> Encoder:
    """A model of pictures and sentences; else what 'regionvlp push' made, which has other files."""
    from regionvlp.search.encoders.checkpoint import open_checkpoint_encoder
    from regionvlp.search.encoders.hub import open_hub_encoder

    try:
        return open_hub_encoder(name, device)
    except (InputError, WeightsError) as refused:
        try:
            return open_checkpoint_encoder(name, device)
        except (InputError, WeightsError):
            raise refused from None


def open_again(record: EncoderRecord, given: Sequence[str] = (), device: str = "cpu") -> Encoder:
    """Opens an encoder of an index.

    Args:
        record: as the index knows it. given: encoders by name that may stand for it, where it was moved.
        device: where a checkpoint runs.

    Raises:
        InputError: it is not where it was, or is another one than the index was made with.
    """
    kind = record.name.partition(":")[0]
    # Of the Hub, a place is a name with its commit, and names what it is by itself.
    prefix = f"{kind}:" if kind in (LABELS, HUB) and not hub_name(record.place) else ""
    usual = f"{prefix}{record.place}" if record.place else record.name
    for name in (*given, usual):
        if name == usual and Path(record.place).is_absolute() and not Path(record.place).exists():
            raise InputError(
                f"the encoder {record.name} of the index is no longer at {record.place}",
                f"say where it is now: --encoder {prefix}FOLDER",
            )
        encoder = open_encoder(name, device)
        if encoder.identity() == record.identity:
            return encoder
    raise InputError(
        f"the encoder at {record.place or record.name} is another one than the index was made with",
        "put the old one back, or make the index anew",
    )
