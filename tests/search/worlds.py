"""Fabricated shards with names, and a tiny sentence encoder in the layout of the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards import Manifest, PlanRow, ShardWriter, write_plan
from regionvlp.shards.vocabulary import Vocabulary, write_vocabulary

OBJECTS = ("dog,hound", "cat", "car", "tree", "ball", "person")
ATTRIBUTES = ("red", "big")
WIDTH, FRAMES, REGIONS = 8, 2, 4


def video(video_id: str, labels: Sequence[str], *, look: str = "", score: float = 0.9) -> VideoRegions:
    """A clip of two frames; each label (``red dog``) is one region in each of them, at a place of its own."""
    rng = np.random.default_rng(list((look or video_id).encode()))
    frames = []
    for frame in range(FRAMES):
        words = [label.split() for label in labels]
        names = [name.split(",")[0] for name in OBJECTS]
        n = len(words)
        corner = np.arange(n)[:, None] * 10 + frame
        frames.append(
            FrameRegions(
                features=rng.standard_normal((n, WIDTH)).astype(np.float32),
                boxes=np.concatenate([corner, corner, corner + 8, corner + 8], 1).astype(np.float32),
                scores=np.linspace(score, score - 0.1, n, dtype=np.float32),
                class_ids=np.array([names.index(word[-1]) for word in words], np.int32),
                attribute_ids=np.array([ATTRIBUTES.index(w[0]) if len(w) > 1 else -1 for w in words], np.int32),
                attribute_scores=np.array([0.8 if len(w) > 1 else 0.0 for w in words], np.float32),
            )
        )
    return VideoRegions.from_frames(
        video_id,
        frames,
        frame_index=range(0, 10 * FRAMES, 10),
        frame_time=[2.0 * i for i in range(FRAMES)],
        image_size=[(48, 64)] * FRAMES,
        slots=REGIONS,
        dtype="float32",
    )


def write_shards(
    folder: Path, videos: Sequence[VideoRegions], *, number: int = 0, detector: str = "toy", names: bool = True
) -> Path:
    """One shard of a folder, with a plan that grows."""
    manifest = Manifest.create_or_check(
        folder,
        Manifest(
            format="hdf5", dtype="float32", frames=FRAMES, regions=REGIONS, feature_width=WIDTH, shard_size=64,
            detector={"name": detector}, video={"reader": "pyav"},
        ),
    )  # fmt: skip
    if names:
        write_vocabulary(folder, Vocabulary(OBJECTS, ATTRIBUTES))
    with ShardWriter(folder, number, manifest) as writer:
        for one in videos:
            writer.add(one)
        writer.finish()
    return folder


def write_segments(folder: Path, rows: Sequence[tuple[str, str, float, float]]) -> None:
    """A plan in which clips (clip id, file, start, end) are stretches of files."""
    write_plan(folder, [PlanRow(0, clip, 1, 1, location=file, start=start, end=end) for clip, file, start, end in rows])


WORLD: Mapping[str, Sequence[str]] = {
    "park/dog.mp4": ("red dog", "ball"),
    "park/cat.mp4": ("cat", "tree"),
    "road/car.mp4": ("red car", "person"),
    "road/two.mp4": ("car", "dog"),
    "empty.mp4": (),
}


def sentence_encoder(folder: Path, *, pooling: str | None = None, seed: int = 0) -> Path:
    """A random BERT of 16 features whose sentences of equal words are near each other."""
    folder.mkdir(parents=True)
    words = " ".join(name.replace(",", " ") for name in (*OBJECTS, *ATTRIBUTES))
    tokenizer = TextTokenizer.train([f"{words} a the runs on nothing bicycle , ."] * 3, 200)
    tokenizer.save(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=40, **sizes)
    model = BertModel(config)
    # Mostly the words themselves: attention and positions of random weights would only be noise.
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_(0, 3)
        model.embeddings.position_embeddings.weight.zero_()
    model.save_pretrained(folder, safe_serialization=True)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder
