"""Sentence vectors from any encoder of BERT's kind in the layout of the Hub, through transformers.

In: a folder, or a name of the Hub, with ``config.json``, ``model.safetensors`` and ``tokenizer.json``. Out: vectors of
length 1. How token states become one vector is read from ``1_Pooling/config.json`` where there is one; else their mean.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.search.encoders.base import Floats, unit
from regionvlp.store.files import sha256_of

_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_EXTRA = ("tokenizer_config.json", "special_tokens_map.json", "1_Pooling/config.json", "sentence_bert_config.json")
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
_LONGEST = 256  # tokens, where nothing says how many
_BATCH = 64


class SentenceEncoder:
    """Encodes sentences on the CPU. Opened from a folder; nothing else is looked up and no code of it is run.

    Args:
        folder: see the top of this file.

    Attributes:
        width: of the vectors.

    Raises:
        InputError: the folder lacks a file. WeightsError: what is there cannot be read as such a model.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder} is no sentence encoder: it has no {', '.join(missing)}",
                "name a folder in the layout of the Hub, with config.json, model.safetensors and tokenizer.json",
            )
        self.folder = folder
        self._pooling = _pooling(folder)
        self._longest = _longest(folder)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._tokenizer, self._model = _loaded(folder)
        self.width = int(self._model.config.hidden_size)

    def identity(self) -> dict[str, Any]:
        """Hashes of weights and tokenizer, and how states are pooled."""
        return {
            "weights": sha256_of(self.folder / "model.safetensors"),
            "tokenizer": sha256_of(self.folder / "tokenizer.json"),
            "config": hashlib.sha256((self.folder / "config.json").read_bytes()).hexdigest(),
            "pooling": self._pooling,
            "longest": self._longest,
        }

    def encode(self, sentences: Sequence[str]) -> Floats:
        """[n, width] float32 vectors of length 1; those of equal sentences are equal bit for bit."""
        import torch

        distinct = list(dict.fromkeys(sentences))
        vectors = np.zeros((len(distinct), self.width), np.float32)
        # Sentences of about one length together: padding costs as much as words do.
        order = sorted(range(len(distinct)), key=lambda i: (len(distinct[i]), distinct[i]))
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                vectors[rows] = self._encode([distinct[i] for i in rows])
        place = {sentence: i for i, sentence in enumerate(distinct)}
        return vectors[[place[sentence] for sentence in sentences]].reshape(-1, self.width)

    def _encode(self, texts: list[str]) -> Floats:
        tokens = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
            return_attention_mask=True,
        )
        states = self._model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"][..., None].bool()
        if self._pooling == "cls":
            pooled = states[:, 0]
        elif self._pooling == "max":
            pooled = states.masked_fill(~mask, -float("inf")).amax(1)
        else:
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return unit(pooled.numpy())


def open_sentence_encoder(name_or_folder: str) -> SentenceEncoder:
    """Opens a sentence encoder.

    Args:
        name_or_folder: a folder, or a name of the Hub (``owner/name``), taken from its cache or fetched once.

    Raises:
        InputError: there is no such folder or name, or it is no sentence encoder. WeightsError: it cannot be read.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return SentenceEncoder(folder.absolute())
    if folder.is_absolute() or name_or_folder.count("/") != 1 or name_or_folder.startswith("."):
        raise InputError(
            f"there is no sentence encoder at {name_or_folder}", "name its folder, or owner/name of the Hub"
        )
    from regionvlp.weights.hub import hub_files

    try:
        config = hub_files(name_or_folder, _FILES)[0]
    except WeightsError as error:
        raise InputError(
            f"the sentence encoder {name_or_folder} cannot be had: {error.message}",
            "check the name and the network, or name a folder that holds it",
        ) from None
    for name in _EXTRA:
        try:
            hub_files(name_or_folder, [name])
        except WeightsError:
            continue  # what is not there is not needed
    return SentenceEncoder(config.parent)


def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as messages

    messages.disable_progress_bar()  # type: ignore[no-untyped-call]
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        model, report = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **local)
    # The library raises whatever its parts raise: OSError, ValueError, KeyError, SafetensorError, RuntimeError ...
    except Exception as error:
        raise WeightsError(
            f"{folder} cannot be read as a sentence encoder: {first_line(error)}", "get it anew"
        ) from None
    unset = [name for name in report["missing_keys"] if "pooler" not in name and "position_ids" not in name]
    if unset:
        raise WeightsError(f"the weights in {folder} lack {unset[0]}", "get the sentence encoder anew")
    if not hasattr(model.config, "hidden_size"):
        raise WeightsError(f"{folder} holds a {type(model).__name__}", "name a sentence encoder of BERT's kind")
    return tokenizer, model.eval()


def _pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    chosen = [how for key, how in _POOLINGS.items() if _json(path).get(key)]
    if len(chosen) != 1:
        raise WeightsError(f"{path} asks for a pooling that is not known here", "use one with mean, cls or max pooling")
    return chosen[0]


def _longest(folder: Path) -> int:
    path = folder / "sentence_bert_config.json"
    given = _json(path).get("max_seq_length") if path.is_file() else None
    positions = _json(folder / "config.json").get("max_position_embeddings")
    most = [value for value in (given, positions) if isinstance(value, int) and value > 2]
    return min([*most, _LONGEST])


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {first_line(error)}", "get the sentence encoder anew") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} is no JSON object", "get the sentence encoder anew")
    return values
