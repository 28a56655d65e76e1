from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from regionvlp.errors import InputError, RegionVLPError, WeightsError
from regionvlp.search.clips import ShardClips, names
from regionvlp.search.encoders.base import unit
from regionvlp.search.encoders.labels import LabelSentences, LabelWords, described, document
from regionvlp.search.encoders.opening import open_encoder
from regionvlp.search.encoders.sentences import SentenceEncoder, open_sentence_encoder
from search.worlds import WORLD, sentence_encoder, video, write_shards


@pytest.mark.parametrize("pooling", [None, "cls_token", "max_tokens"])
def test_sentences_are_those_of_transformers(tmp_path: Path, pooling: str | None) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = sentence_encoder(tmp_path / "tiny", pooling=pooling)
    texts = ["a dog", "the red car runs on", "cat , tree", "a dog"]
    vectors = SentenceEncoder(folder).encode(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(texts, vectors, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        whole = {None: states.mean(0), "cls_token": states[0], "max_tokens": states.max(0).values}[pooling]
        np.testing.assert_allclose(vector, unit(whole.numpy()), atol=1e-5)
    assert np.array_equal(vectors[0], vectors[3])
    assert SentenceEncoder(folder).encode([]).shape == (0, 16)
    assert SentenceEncoder(folder).encode(["dog " * 5000]).shape == (1, 16)


@pytest.mark.parametrize(
    "damage", ["no folder", "empty", "weights", "config", "other model", "fewer weights", "pooling"]
)
def test_a_folder_that_is_none_is_one_line(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tiny"
    if damage == "empty":
        folder.mkdir()
    elif damage != "no folder":
        sentence_encoder(folder, pooling="lasttoken" if damage == "pooling" else None)
    if damage == "weights":
        (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    elif damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "other model":
        (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    elif damage == "fewer weights":
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors.pop("encoder.layer.0.output.dense.weight")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RegionVLPError) as caught:
        open_sentence_encoder(str(folder))
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_names_that_are_no_encoders() -> None:
    for name in ("label", "labels:", "nowhere/at/all", "labels:no/such/folder"):
        with pytest.raises(InputError):
            open_encoder(name)
    with pytest.raises(InputError, match="cannot be had"):
        open_encoder("labels:nobody/no-such-model")


def test_a_folder_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises((InputError, WeightsError)):
        open_encoder(str(tmp_path))


def test_labels_make_a_sentence_the_surest_first(tmp_path: Path) -> None:
    videos = [video("a.mp4", ["red dog", "ball"]), video("b.mp4", ["cat"], score=0.1), video("c.mp4", [])]
    clips = ShardClips([write_shards(tmp_path / "s", videos)])
    read = {clip.clip_id: clips.read(clip) for clip in clips.clips()}
    assert list(described(read["a.mp4"].evidence)) == ["red dog", "ball"]
    assert document(read["a.mp4"].evidence) == "red dog\nball"
    assert described(read["b.mp4"].evidence) == described(read["c.mp4"].evidence) == {"nothing": 1}
    assert names(read["a.mp4"].evidence, 0.25) == pytest.approx({"red dog": 2**0.5 * 0.9, "ball": 2**0.5 * 0.8})


def test_a_clip_is_its_sentence_and_the_mean_of_its_labels(tmp_path: Path, sentences: Path) -> None:
    clips = ShardClips([write_shards(tmp_path / "s", [video("a.mp4", ["red dog", "ball"]), video("b.mp4", ["cat"])])])
    encoder = SentenceEncoder(sentences)
    pooled = LabelSentences(encoder, "labels:tiny").encode_clips([clips.read(clip) for clip in clips.clips()]).pooled
    sentence, dog, ball, cat = encoder.encode(["red dog, ball", "red dog", "ball", "cat"])
    by_hand = unit(sentence + unit(0.9 * dog + 0.8 * ball))
    assert pooled is not None
    np.testing.assert_allclose(pooled, [by_hand, cat], atol=1e-5)


def test_the_box_of_a_word_is_the_one_whose_label_is_nearest(tmp_path: Path, sentences: Path) -> None:
    clips = ShardClips([write_shards(tmp_path / "s", [video(name, labels) for name, labels in WORLD.items()])])
    two = clips.read(next(clip for clip in clips.clips() if clip.clip_id == "road/two.mp4"))
    evidence = two.evidence
    assert list(evidence.labels) == ["car", "dog", "car", "dog"]
    assert evidence.frame.tolist() == [0, 0, 1, 1]
    encoder = LabelSentences(SentenceEncoder(sentences), "labels:tiny")
    query = encoder.encode_queries(["a dog runs on the car"])[0]
    weights = encoder.word_weights(query, evidence, None)
    assert weights is not None
    by_word = dict(zip(query.words, weights, strict=True))
    assert by_word["dog"].argmax() in (1, 3)
    assert by_word["car"].argmax() in (0, 2)
    words = LabelWords()
    matched = words.word_weights(words.encode_queries(["two dogs"])[0], evidence, None)
    assert matched is not None
    assert (matched[1] > 0).tolist() == [False, True, False, True]


def test_shards_without_names_have_no_words(tmp_path: Path, sentences: Path) -> None:
    clips = ShardClips([write_shards(tmp_path / "s", [video("a.mp4", ["dog"])], names=False)])
    read = clips.read(clips.clips()[0])
    assert list(described(read.evidence)) == ["nothing"]
    encoder = LabelSentences(SentenceEncoder(sentences), "labels:tiny")
    assert encoder.word_weights(encoder.encode_queries(["dog"])[0], read.evidence, None) is None


def test_the_identity_follows_the_files(tmp_path: Path, sentences: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sentences, copy)
    same = open_encoder(f"labels:{copy}").identity()
    assert same == open_encoder(f"labels:{sentences}").identity()
    other = sentence_encoder(tmp_path / "other", seed=3)
    assert open_encoder(f"labels:{other}").identity() != same
