"""Nouns and verbs: where they stand, what is left of a caption, what each token weighs, and where no tagger is."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from regionvlp.data.captions import Caption
from regionvlp.data.settings import DataSettings
from regionvlp.data.sources import text_reader
from regionvlp.data.text.content_words import ContentWords, WordWeights
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError

TAGS = {"dog": "NN", "dogs": "NNS", "runs": "VBZ", "ball": "NN", "well-known": "JJ", "man's": "NN", "red": "JJ"}
CAPTIONS = ["a dog runs", "the dog is red", "a ball", "Dogs, dogs!"]


def tag(words: list[str]) -> list[tuple[str, str]]:
    """A tagger that knows the words above; all others are determiners."""
    return [(word, TAGS.get(word.lower(), "NN" if word == "," else "DT")) for word in words]


CONTENT = ContentWords(tag)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    # So few letters that words break into pieces.
    return TextTokenizer.train(["a the is red !", *"dogrunsbl"], 64)


@pytest.mark.parametrize(
    ("caption", "selected"),
    [
        ("A dog runs, red.", "dog runs"),
        ("the man's ball", "man's ball"),
        ("a well-known  DOG", "DOG"),
        ("the red", "the red"),
        ("", ""),
        (", ,", ", ,"),
    ],
)
def test_selection(caption: str, selected: str) -> None:
    assert CONTENT.select(caption) == selected


def test_spans_are_of_the_caption_as_it_stands() -> None:
    caption = "  A dog —runs"
    assert [caption[start:end] for start, end in CONTENT(caption)] == ["dog", "runs"]


def test_weights_stand_at_the_tokens_of_their_words(tokenizer: TextTokenizer) -> None:
    weights = WordWeights(CAPTIONS, CONTENT)
    assert weights.of_word("dog") == pytest.approx(math.log(4 / 2))
    assert weights.of_word("Dogs") == pytest.approx(math.log(4 / 1))
    assert weights.of_word("unheard") == pytest.approx(math.log(4))
    captions = ["the dog runs a ball", "a dog", "the"]
    encoded = tokenizer.encode(captions, 32)
    found = weights(captions, tokenizer, 32, encoded["input_ids"].shape[1])
    assert found.shape == encoded["input_ids"][:, 1:].shape
    assert found.dtype is torch.float32
    for row, caption in enumerate(captions):
        expected = torch.zeros(found.shape[1])
        for start, end in CONTENT(caption):
            pieces = tokenizer.tokens_of(caption, (start, end), 32)
            assert len(pieces) > 1
            for i in pieces:
                expected[i - 1] = weights.of_word(caption[start:end]) / len(pieces)
        torch.testing.assert_close(found[row], expected)
    assert not found[2].any()


def test_words_that_truncation_cut_off_weigh_nothing(tokenizer: TextTokenizer) -> None:
    weights = WordWeights(CAPTIONS, CONTENT)
    found = weights(["the a the a dog"], tokenizer, 5, 5)
    assert not found.any()
    assert weights([], tokenizer, 5, 5).shape == (0, 4)


def test_it_travels_to_workers(tokenizer: TextTokenizer) -> None:
    CONTENT("a dog")  # something to forget
    again = pickle.loads(pickle.dumps(WordWeights(CAPTIONS, CONTENT)))
    assert torch.equal(again(CAPTIONS, tokenizer, 16, 16), WordWeights(CAPTIONS, CONTENT)(CAPTIONS, tokenizer, 16, 16))


@pytest.fixture
def nltk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the optional package, with a model."""
    module: Any = ModuleType("nltk")
    module.pos_tag = tag
    monkeypatch.setitem(sys.modules, "nltk", module)
    return module  # type: ignore[no-any-return]


@pytest.mark.usefixtures("nltk")
def test_batches(tokenizer: TextTokenizer) -> None:
    captions = [Caption("v", text, str(i), "", "") for i, text in enumerate(CAPTIONS)]
    plain = text_reader(DataSettings(text_length=16), tokenizer)(["a dog runs"])
    assert "word_weight" not in plain
    weighed = text_reader(DataSettings(text_length=16), tokenizer, captions)(["a dog runs"])
    assert torch.equal(weighed["input_ids"], plain["input_ids"])
    assert weighed["word_weight"].shape == (1, plain["input_ids"].shape[1] - 1)
    chosen = text_reader(DataSettings(text_length=16, words="nouns_and_verbs"), tokenizer, captions)(["a dog runs"])
    assert torch.equal(chosen["input_ids"], tokenizer.encode(["dog runs"], 16)["input_ids"])
    assert (chosen["word_weight"][0, :-1] > 0).all()  # all but [SEP]


def test_without_a_tagger(nltk: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_model(words: list[str]) -> list[tuple[str, str]]:
        raise LookupError("\n***\nResource not found")

    monkeypatch.setattr(nltk, "pos_tag", no_model)
    with pytest.raises(InputError, match="tagger model") as caught:
        ContentWords()
    assert "nltk.downloader averaged_perceptron_tagger_eng" in caught.value.hint
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(InputError, match="not installed") as caught:
        ContentWords()
    assert "regionvlp[tagger]" in caught.value.hint
