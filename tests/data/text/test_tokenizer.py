"""The tokenizer: the real vocabulary, training, and files that are damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from regionvlp.data.captions import Caption
from regionvlp.data.sources import check_script
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError

TEXTS = [
    "a red circle moves to the right while a small blue star climbs",
    "The striped box, shrinking; a green star is moving left",
    "two crosses meet and one of them disappears",
] * 3


@pytest.fixture(scope="module")
def trained() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 120)


@pytest.mark.parametrize("file", ["", "tokenizer.json", "vocab.txt"])
def test_the_real_vocabulary(sample_data: Path, file: str) -> None:
    tokenizer = TextTokenizer.load(sample_data / "text" / file)
    assert tokenizer.vocab_size == 30522
    assert tokenizer.hash.startswith("07eced37")
    assert tokenizer.hash.endswith("92038a3")
    ids = tokenizer.encode(["A  little girl does\tgymnastics", "café"], 100)["input_ids"].tolist()
    assert ids == [[101, 1037, 2210, 2611, 2515, 14002, 102], [101, 7668, 102, 0, 0, 0, 0]]


def test_encode_pads_and_truncates(trained: TextTokenizer) -> None:
    full = trained.encode(["a red star", "a"], 32)
    assert full["input_ids"].dtype == torch.int64
    assert full["attention_mask"].tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    cls, sep = full["input_ids"][1, [0, 2]].tolist()
    assert full["input_ids"][1].tolist()[3:] == [0, 0]
    cut = trained.encode(["a red star", "a"], 4, pad_to=6)
    assert cut["input_ids"].shape == (2, 6)
    assert cut["input_ids"][0].tolist() == [*full["input_ids"][0, :3].tolist(), sep, 0, 0]
    assert cut["attention_mask"].sum(1).tolist() == [4, 3]
    assert cut["input_ids"][0, 0] == cls


def test_words_point_into_the_text(trained: TextTokenizer) -> None:
    text = "A RED  stars, circle"
    length = trained.encode([text], 32)["attention_mask"].sum()
    words = trained.words(text, 32)
    assert len(words) == length
    assert words[0] is None
    assert words[-1] is None
    assert "".join(text[start:end] for start, end in filter(None, words)) == "AREDstars,circle"
    span = (text.index("stars"), text.index("stars") + 5)
    tokens = trained.tokens_of(text, span, 32)
    assert "".join(text[slice(*words[i])] for i in tokens) == "stars"  # type: ignore[misc]
    assert trained.tokens_of(text, span, 4) == []
    assert len(trained.words(text, 4)) == 4


def test_training_is_the_same_in_another_process(trained: TextTokenizer) -> None:
    code = (
        f"from regionvlp.data.text.tokenizer import TextTokenizer; assert TextTokenizer.train({TEXTS!r}, 120).hash == "
    )
    subprocess.run([sys.executable, "-c", f"{code}'{trained.hash}'"], check=True)


def test_training_keeps_to_its_size_and_knows_every_letter(trained: TextTokenizer) -> None:
    assert trained.vocab_size == 120
    assert trained.encode(["[PAD] [UNK]"], 8)["input_ids"].tolist() == [[2, 0, 1, 3]]
    assert trained.unknown_share(["scars on the ring", "a \u4e2d\u6587", "", "a"]) == [0, pytest.approx(2 / 3), 1, 0]
    assert TextTokenizer.train(TEXTS, 10_000).vocab_size < 1000
    with pytest.raises(InputError, match="no word to train"):
        TextTokenizer.train(["", " \n"])


def test_saving(trained: TextTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    loaded = TextTokenizer.load(tmp_path)
    assert (loaded.hash, loaded.vocab_size) == (trained.hash, trained.vocab_size)
    assert torch.equal(loaded.encode(TEXTS, 16)["input_ids"], trained.encode(TEXTS, 16)["input_ids"])


def test_transformers_reads_what_was_saved(trained: TextTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    trained.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    ours = trained.encode(TEXTS, 100)
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    assert torch.equal(theirs["attention_mask"].bool(), ours["attention_mask"])


def test_files_that_are_no_tokenizer(trained: TextTokenizer, tmp_path: Path) -> None:
    def fails(message: str, name: str | Path = tmp_path) -> None:
        with pytest.raises(InputError, match=message) as caught:
            TextTokenizer.load(name)
        assert "\n" not in str(caught.value)

    fails("holds neither tokenizer.json nor vocab.txt")
    fails("no tokenizer at", tmp_path / "nowhere")
    trained.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    fails("is damaged or no tokenizer")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
    fails(r"has no token \[CLS\]")
    (tmp_path / "vocab.txt").write_text("[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\nthe\r\nman\r\n")
    assert TextTokenizer.load(tmp_path).encode(["The man"], 8)["input_ids"].tolist() == [[2, 5, 6, 3]]
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 30522}))
    fails("holds 7 tokens, config.json says 30522")
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe")
    fails("cannot read the vocabulary")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(name: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            TextTokenizer.load(name)
        assert "\n" not in str(caught.value)
        assert not caplog.records

    def waits(seconds: float) -> None:
        raise AssertionError("the hub's client tries again")

    def broken(name: str, file: str, *, local_files_only: bool = False, **_: object) -> str:
        raise ConnectionError(f"{name}/{file}: connection reset\nwhile reading")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", waits)
    for name in ("someone/bert", "bert-base-uncased"):
        fails(name, rf"cannot download the tokenizer '{name}': http://127.0.0.1:9 does not answer .*local folder")
    fails("nowhere", "no tokenizer at nowhere: no such folder")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    monkeypatch.setattr("regionvlp.weights.hub.reach", lambda url: None)
    fails("someone/bert", r"cannot download the tokenizer 'someone/bert': .* reset \(.*local folder")


def test_captions_of_another_script(trained: TextTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    captions = [Caption(f"v{i}", TEXTS[0], str(i), "", "t") for i in range(200)]
    check_script(captions, trained)
    assert not caplog.text
    captions[7] = Caption("v7", "собака бежит", "7", "", "t")
    check_script(captions, trained)
    assert "1 of 200 captions, such as that of v7" in caplog.text
    with pytest.raises(InputError, match=r"does not know the words of 1 of 50 captions"):
        check_script(captions[:50], trained)
