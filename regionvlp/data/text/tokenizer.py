"""The text tokenizer: WordPiece as BERT's uncased models use it, from a local folder, from the hub, or trained here.

Shape letters: B texts, L tokens (``[CLS]`` first, ``[SEP]`` last).
In: strings. Out: padded ids and masks, and which characters each token stands for. Built on the ``tokenizers`` library
alone, whose files mean the same whatever version of ``transformers`` is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from regionvlp.errors import InputError, WeightsError
from regionvlp.weights.hub import hub_files

# Batches are small and loaders have workers of their own; threads here would only make every fork warn.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_ALPHABET = 1000  # characters that a trained vocabulary can spell
_FILE = "tokenizer.json"
# Models of the hub whose names have no owner are few, and of BERT's kind these; any other such word is a folder.
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+|(distil)?bert-(base|large)-(un)?cased")


class TextTokenizer:
    """Turns texts into token ids. Made by :meth:`load` or :meth:`train`.

    Attributes:
        vocab_size: rows that an embedding table needs.
        hash: SHA-256 of the vocabulary, one token a line in the order of the ids: that of its ``vocab.txt``.
    """

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS[:4] if token not in vocabulary]
        if missing:
            raise InputError(
                f"the tokenizer {source} has no token {missing[0]}", "use one of BERT's kind, or download it again"
            )
        # The file may ask for padding or truncation of its own.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._pad, self._unk, self._cls, self._sep = (vocabulary[token] for token in SPECIAL_TOKENS[:4])
        self.vocab_size: int = max(vocabulary.values()) + 1
        lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
        self.hash: str = hashlib.sha256(lines.encode()).hexdigest()

    @classmethod
    def load(cls, name_or_folder: str | os.PathLike[str]) -> TextTokenizer:
        """Loads a tokenizer.

        Args:
            name_or_folder: a folder with ``tokenizer.json`` or ``vocab.txt``, such a file, or a name on the Hugging
                Face hub such as ``distilbert-base-uncased`` (downloaded once, then taken from its cache).

        Raises:
            InputError: nothing is there, the download failed, or the file is damaged.
        """
        name = os.fspath(name_or_folder)
        path = Path(name).expanduser()
        if not path.exists():
            if not _HUB_NAME.fullmatch(name):
                raise InputError(f"no tokenizer at {name}: no such folder", "check the path")
            path = _download(name)
        if path.is_dir():
            path = next((path / file for file in (_FILE, "vocab.txt") if (path / file).is_file()), path / _FILE)
        if not path.is_file():
            raise InputError(f"{path.parent} holds neither {_FILE} nor vocab.txt", "name the folder of a tokenizer")
        return cls(_read_vocabulary(path) if path.suffix == ".txt" else _read_file(path), str(path))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 30522) -> TextTokenizer:
        """Learns a WordPiece vocabulary; the same texts give the same vocabulary.

        Args:
            texts: what to learn from.
            vocab_size: at most so many tokens; few texts give fewer.

        Raises:
            InputError: the texts hold no word.
        """
        texts = list(texts)
        # The library numbers pieces in the order of a hash table that differs from run to run, and the numbers decide
        # between pieces of equal count. Naming all single characters first, as if they were special, settles both.
        letters = _alphabet(texts)
        if not letters:
            raise InputError("the captions hold no word to train a tokenizer on", "check the captions file")
        singles = [*letters, *(f"##{letter}" for letter in letters)]
        learner = _bert_tokenizer({SPECIAL_TOKENS[1]: 0})
        learner.train_from_iterator(
            texts,
            trainers.WordPieceTrainer(
                vocab_size=max(vocab_size, len(singles) + len(SPECIAL_TOKENS)),
                special_tokens=[*SPECIAL_TOKENS, *singles],
                initial_alphabet=letters,
                limit_alphabet=len(letters),
                show_progress=False,
            ),
        )
        return cls(_bert_tokenizer(learner.get_vocab()), "trained here")

    def save(self, folder: Path) -> None:
        """Writes ``tokenizer.json``, and the ``tokenizer_config.json`` by which ``transformers`` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **dict(zip(names, SPECIAL_TOKENS, strict=True))}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / _FILE).write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")

    def encode(self, texts: Sequence[str], max_length: int, pad_to: int | None = None) -> dict[str, Tensor]:
        """Encodes a batch.

        Args:
            texts: B strings.
            max_length: at most so many tokens, the two special ones included; longer texts lose their end.
            pad_to: L; by default the longest text of the batch decides. The public DemoVLP pads to 100 always.

        Returns:
            ``input_ids`` [B, L] int64 and ``attention_mask`` [B, L] bool, True where there is a token.
        """
        assert max_length >= 2, "no room for [CLS] and [SEP]"
        assert pad_to is None or pad_to >= max_length, f"cannot pad {max_length} tokens to {pad_to}"
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [[self._cls, *encoding.ids[: max_length - 2], self._sep] for encoding in encodings]
        length = pad_to or max((len(row) for row in rows), default=2)
        input_ids = torch.full((len(rows), length), self._pad, dtype=torch.int64)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.bool)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)] = torch.tensor(row)
            attention_mask[i, : len(row)] = True
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def words(self, text: str, max_length: int) -> list[tuple[int, int] | None]:
        """For each token of :meth:`encode`, the characters (start, end) that it stands for; None for special ones."""
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets[: max_length - 2]
        return [None, *spans, None]

    def tokens_of(self, text: str, span: tuple[int, int], max_length: int) -> list[int]:
        """Positions in :meth:`encode`'s row (``[CLS]`` is 0) of the tokens that touch the characters ``span``.

        Empty where truncation cut them off.
        """
        start, end = span
        spans = self.words(text, max_length)
        return [i for i, token in enumerate(spans) if token is not None and token[0] < end and token[1] > start]

    def unknown_share(self, texts: Sequence[str]) -> list[float]:
        """For each text, the share of its tokens that the vocabulary does not know; 1 where it has no token."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [e.ids.count(self._unk) / len(e.ids) if e.ids else 1.0 for e in encodings]


def _bert_tokenizer(vocabulary: dict[str, int], lowercase: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS[1], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if all(token in vocabulary for token in SPECIAL_TOKENS):
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        tokenizer.post_processor = processors.BertProcessing(
            (SPECIAL_TOKENS[3], vocabulary[SPECIAL_TOKENS[3]]), (SPECIAL_TOKENS[2], vocabulary[SPECIAL_TOKENS[2]])
        )
    return tokenizer


def _alphabet(texts: Iterable[str]) -> list[str]:
    """The most frequent characters of the words, after normalisation, in the order of their code points."""
    plain = _bert_tokenizer({SPECIAL_TOKENS[1]: 0})
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update("".join(plain.normalizer.normalize_str(text).split()))
    kept = sorted(counts, key=lambda letter: (-counts[letter], letter))[:MAX_ALPHABET]
    return sorted(kept)


def _download(name: str) -> Path:
    try:
        return hub_files(name, [_FILE])[0]
    except WeightsError as error:
        raise InputError(
            f"cannot download the tokenizer '{name}': {error.message}",
            f"check name and network and try again, or name a local folder with {_FILE} or vocab.txt",
        ) from None


def _read_file(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    # The library raises plain Exception for whatever is wrong with a file.
    except Exception as error:
        raise InputError(f"{path} is damaged or no tokenizer: {error}", "delete it and download it again") from None


def _read_vocabulary(path: Path) -> Tokenizer:
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
        settings = path.with_name("tokenizer_config.json")
        cased = settings.is_file() and json.loads(settings.read_text()).get("do_lower_case") is False
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the vocabulary {path}: {error}", "download it again") from None
    if tokens[-1] == "":
        tokens.pop()
    _check_size(tokens, path)
    return _bert_tokenizer({token.rstrip("\r"): i for i, token in enumerate(tokens)}, lowercase=not cased)


def _check_size(tokens: list[str], path: Path) -> None:
    """A list of words that was cut off on its way still loads; the model's own file tells its true length."""
    config = path.with_name("config.json")
    try:
        expected = json.loads(config.read_text(encoding="utf-8")).get("vocab_size") if config.is_file() else None
    except (OSError, ValueError, AttributeError):
        return
    # Some models round the size of their table up.
    if isinstance(expected, int) and len(tokens) + 128 <= expected:
        raise InputError(f"{path} holds {len(tokens)} tokens, {config.name} says {expected}", "download it again")
