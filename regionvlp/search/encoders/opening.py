"""From the name of an encoder to the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regionvlp.errors import InputError
from regionvlp.search.encoders.base import Encoder
from regionvlp.search.folder import EncoderRecord
from regionvlp.weights.hub_models import hub_name

LABELS = "labels"


def open_encoder(name: str, device: str = "cpu") -> Encoder:
    """Opens an encoder.

    Args:
        name: ``labels`` (words), ``labels:FOLDER_OR_NAME`` (words joined to a sentence, read by a sentence encoder), or
            the folder of a checkpoint or run, or a shared checkpoint such as ``hub:owner/name@revision``.
        device: where a checkpoint runs.

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
    if not hub_name(name) and not Path(name).is_dir():
        raise InputError(
            f"there is no encoder '{name}'", "write labels, labels:FOLDER_OR_NAME, or the folder of a checkpoint or run"
        )
    from regionvlp.search.encoders.checkpoint import open_checkpoint_encoder

    return open_checkpoint_encoder(name, device)


def open_again(record: EncoderRecord, given: Sequence[str] = (), device: str = "cpu") -> Encoder:
    """Opens an encoder of an index.

    Args:
        record: as the index knows it. given: encoders by name that may stand for it, where it was moved.
        device: where a checkpoint runs.

    Raises:
        InputError: it is not where it was, or is another one than the index was made with.
    """
    kind = record.name.partition(":")[0]
    usual = f"{LABELS}:{record.place}" if kind == LABELS and record.place else record.place or record.name
    for name in (*given, usual):
        gone = name == usual and record.place and not hub_name(record.place) and not Path(record.place).exists()
        if gone:
            raise InputError(
                f"the encoder {record.name} of the index is no longer at {record.place}",
                f"say where it is now: --encoder {'labels:' if kind == LABELS else ''}FOLDER",
            )
        encoder = open_encoder(name, device)
        if encoder.identity() == record.identity:
            return encoder
    raise InputError(
        f"the encoder at {record.place or record.name} is another one than the index was made with",
        "put the old one back, or make the index anew",
    )
