"""Whether anything answers: each fast way beside a slow one, and what is learnt from a gallery."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.search import presence
from regionvlp.search.absent import absent, area, calibration_error, measures
from regionvlp.search.encoders.base import Query, unit
from regionvlp.search.folder import CONTENTS_NAME, Contents
from regionvlp.search.index import open_index
from regionvlp.search.presence import Judge, Standing, VectorCrowd, WordCrowd, judge, logistic, probability
from regionvlp.search.rank import Gallery
from regionvlp.search.words import Words, tokens
from regionvlp.store.files import document_text, read_document
from search.worlds import video, write_shards

NAMES = ("dog", "cat", "car", "tree", "ball", "person")
PAIRS = list(itertools.combinations(NAMES, 2))


def test_the_bank_shares_nothing_with_captions_that_are_tested_on(sample_data: Path) -> None:
    notes = json.loads((sample_data / "images" / "coco_captions.json").read_text())["annotations"]
    spoken = json.loads((sample_data / "videos" / "captions.json").read_text())
    tested = [note["caption"] for note in notes] + [caption for captions in spoken.values() for caption in captions]
    assert len(tested) > 200
    bank = presence.unrelated_sentences()
    assert len(set(bank)) == len(bank) > 100
    assert not runs(bank) & runs(tested)


def runs(sentences: Sequence[str], length: int = 5) -> set[tuple[str, ...]]:
    """All runs of so many words."""
    words = [tokens(sentence) for sentence in sentences]
    return {tuple(row[i : i + length]) for row in words for i in range(len(row) - length + 1)}


def test_the_standing_of_vectors_is_that_of_all_scores() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((60, 16))).astype(np.float16)
    files, live = np.repeat(np.arange(20), 3), np.ones(60, np.bool_)
    live[[4, 9]] = False
    crowd = VectorCrowd(Gallery([vectors[:25], vectors[25:]]), files, live)
    for allowed in (live, live & (files != 3), live & (files == 7)):
        query = unit(rng.standard_normal(16))
        found = crowd.standing(Query("", query), allowed)
        scores = {row: float(vectors[row].astype(np.float32) @ query) for row in np.flatnonzero(allowed)}
        best = max(scores, key=lambda row: scores[row])
        spread = np.std(list(scores.values()))
        others = [score for row, score in scores.items() if files[row] != files[best]]
        assert found.best == pytest.approx(scores[best], abs=1e-6)
        assert found.contrast == pytest.approx((scores[best] - np.mean(list(scores.values()))) / spread, abs=1e-4)
        assert found.lead == pytest.approx(scores[best] - max(others) if others else 0, abs=1e-6)


def test_the_standing_of_words_is_that_of_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = {f"{i}": "\n".join(rng.choice(NAMES, rng.integers(0, 4), replace=False)) for i in range(30)}
    words = Words(tmp_path)
    words.put(texts)
    live = np.arange(30) != 5
    crowd = WordCrowd(words, list(texts), np.arange(30) // 2, live)
    for text in ("a dog and two cats", "the ball", "nothing of it", "dogs, dogs and a car"):
        allowed = live & (np.arange(30) != 7)
        found = crowd.standing(Query(text, None), allowed)
        kept = {i for i in texts if allowed[int(i)]}
        best = max((score for i, score in words.match(text).items() if i in kept), default=0.0)
        singles = [
            max((score for i, score in words.match(word).items() if i in kept), default=0.0)
            for word in set(tokens(text))
        ]
        assert found.best == pytest.approx(best, abs=1e-5)
        assert found.contrast == pytest.approx(best / sum(singles) if sum(singles) else 0, abs=1e-5)
        assert found.lead == 0


def test_the_regression_is_at_its_minimum() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 3)) * [1, 5, 0] + [0, 2, 4]  # the last one never changes
    true = rng.random(300) < 1 / (1 + np.exp(-(features[:, 0] - features[:, 1] / 5)))
    found = np.array(logistic(features, true))
    assert found[3] == 0

    def loss(weights: np.ndarray) -> float:
        margin = np.where(true, 1, -1) * (weights[0] + features @ weights[1:])
        return float(
            np.log1p(np.exp(-margin)).sum() + presence.RIDGE / 2 * ((weights[1:] * features.std(0)) ** 2).sum()
        )

    lowest = loss(found)
    for change in rng.standard_normal((50, 4)) * [0.05, 0.05, 0.01, 0]:
        assert loss(found + change) > lowest


class Vectors:
    """An encoder whose sentences are vectors drawn by their text."""

    def encode_queries(self, texts: Sequence[str], words: bool = True) -> list[Query]:
        return [Query(text, unit(np.random.default_rng(list(text.encode())).standard_normal(32))) for text in texts]


def test_what_is_learnt_tells_queries_with_an_answer_from_those_without() -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng.standard_normal((80, 32)) + 0.5)
    files, live, encoder = np.arange(80), np.ones(80, np.bool_), Vectors()
    crowd = VectorCrowd(Gallery([vectors.astype(np.float16)]), files, live)
    learnt = judge(crowd, encoder, files, live)  # type: ignore[arg-type]
    assert learnt == judge(crowd, encoder, files, live)  # type: ignore[arg-type]
    # What people say: a clip's own direction and as much of something else, which the rehearsal never saw.
    odds = np.zeros((2, 80))
    for row in range(80):
        query = Query("", unit(unit(vectors[row] - vectors.mean(0)) + unit(rng.standard_normal(32))))
        for k, allowed in enumerate((live & (files != row), live)):
            odds[k, row] = probability([learnt.logit(crowd.standing(query, allowed))])
    told = measures(odds[0], odds[1])
    assert told["auc"] > 0.9
    assert told["ece"] < 0.3
    # Too few files to learn from.
    few = live & (files < presence.FEWEST - 1)
    assert judge(VectorCrowd(Gallery([vectors.astype(np.float16)]), files, few), encoder, files, few).weights == (  # type: ignore[arg-type]
        presence.DEFAULT
    )


def test_several_encoders_agree_on_the_mean_of_their_logits() -> None:
    assert probability([2.0, -2.0]) == 0.5
    assert probability([1.0]) == pytest.approx(1 / (1 + np.exp(-1)))
    assert 0 < probability([-1e9]) < probability([1e9]) < 1
    known = Judge(0.2, 0.1, (-1.0, 2.0, 3.0, 4.0))
    assert known.logit(Standing(0.5, 0.1, 0.05)) == pytest.approx(-1 + 2 * 3 + 3 * 0.1 + 4 * 0.5)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """An index of 15 clips by words, each of another two things."""
    write_shards(tmp_path / "shards", [video(f"{i:02d}.mp4", [a, f"red {b}"]) for i, (a, b) in enumerate(PAIRS)])
    assert (
        run(["index", "--shards", str(tmp_path / "shards"), "--out", str(tmp_path / "i"), "--encoder", "labels"]) == 0
    )
    return tmp_path / "i"


def test_it_is_stored_and_learnt_again_when_the_index_grows(world: Path, tmp_path: Path) -> None:
    index = open_index(world)
    stored = index.contents.presence
    assert len(stored) == 1
    assert stored == index.jury.learn(index.encoders)
    asked = index.search("a red dog and a cat").present
    # An index that was interrupted, or made before any of this, learns at the first query.
    values = read_document(world / CONTENTS_NAME)
    del values["presence"]
    (world / CONTENTS_NAME).write_text(document_text({**values, "null": [[0.1, 0.2]]}))
    assert Contents.read(world).presence == ()
    assert open_index(world).search("a red dog and a cat").present == asked
    write_shards(tmp_path / "shards", [video("new.mp4", ["ball", "big ball"])], number=1)
    assert run(["index", "--shards", str(tmp_path / "shards"), "--out", str(world), "--encoder", "labels"]) == 0
    grown = open_index(world)
    assert grown.contents.presence == grown.jury.learn(grown.encoders) != stored


def test_among_few_clips_the_null_is_theirs(world: Path) -> None:
    index = open_index(world)
    few = index.live & (np.arange(len(index.live)) < 5)
    (narrow,) = index.jury.narrowed(index.judges, index.encoders, few)
    best = [max((index.words.match(s).get(f"{i:02d}.mp4", 0.0) for i in range(5)), default=0.0)
            for s in presence.unrelated_sentences()]  # fmt: skip
    assert narrow.mean == pytest.approx(np.mean(best), abs=1e-5)
    assert narrow.weights == index.judges[0].weights
    most = index.live & (np.arange(len(index.live)) > 2)
    assert index.jury.narrowed(index.judges, index.encoders, most) is index.judges
    assert index.search("dog", folder="nowhere").present == 0


def test_areas_and_calibration_are_those_of_all_pairs_and_bins() -> None:
    rng = np.random.default_rng(0)
    without, given = rng.integers(0, 8, 40) / 8, rng.integers(1, 9, 30) / 8
    pairs = [(a < b) + (a == b) / 2 for a in without for b in given]
    assert area(without, given) == pytest.approx(np.mean(pairs))
    values, there = np.concatenate([without, given]), np.repeat([0.0, 1.0], [40, 30])
    error = 0.0
    for low in range(10):
        inside = [(v, t) for v, t in zip(values, there, strict=True) if min(int(v * 10), 9) == low]
        if inside:
            error += len(inside) / 70 * abs(np.mean([v for v, _ in inside]) - np.mean([t for _, t in inside]))
    assert calibration_error(values, there) == pytest.approx(error)
    # Probabilities that are true are as wrong as chance has it.
    true = rng.random(20000)
    drawn = rng.random(20000) < true
    told = measures(true[~drawn], true[drawn])
    assert told["ece"] == pytest.approx(told["ece_by_chance"], abs=0.02)
    assert sum(one["queries"] for one in told["curve"]) == 20000
    assert all(one["present"] == pytest.approx(one["probability"], abs=0.05) for one in told["curve"])


def test_queries_are_asked_with_their_file_and_without(world: Path, tmp_path: Path) -> None:
    index = open_index(world)
    captions = [(f"{i:02d}.mp4", f"a {one} and a red {other}") for i, (one, other) in enumerate(PAIRS)]
    told = absent(index, captions)["encoders"]["labels"]
    encoder, crowd = index.encoders[0], index.jury.crowds[0]
    logits: dict[bool, list[float]] = {True: [], False: []}
    for name, caption in captions:
        for given in logits:
            allowed = index.live.copy()
            allowed[index.row(name)] = given
            query = encoder.encode_queries([caption])[0]
            logits[given].append(index.judges[0].logit(crowd.standing(query, allowed)))
    assert told["auc"] == pytest.approx(area(np.array(logits[False]), np.array(logits[True])))
    assert told["auc"] > 0.8
    with (tmp_path / "q.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "caption"), *captions])
    report = tmp_path / "report.json"
    arguments = ["--queries", str(tmp_path / "q.csv"), "--absent", "--certificate", "--json", str(report)]
    assert run(["eval", "index", str(world), *arguments]) == 0
    values: dict[str, Any] = json.loads(report.read_text())
    assert values["absent"]["encoders"]["labels"]["auc"] == pytest.approx(told["auc"])
    assert values["certificate"]["curve"][0]["shown"] >= values["certificate"]["curve"][0]["random"]


def test_an_index_without_boxes_has_nothing_to_take_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_shards(tmp_path / "s", [video("a.mp4", []), video("b.mp4", [])])
    assert run(["index", "--shards", str(shards), "--out", str(tmp_path / "i"), "--encoder", "labels"]) == 0
    (tmp_path / "q.csv").write_text("video_id,caption\na.mp4,a dog\n")
    capsys.readouterr()
    arguments = ["--queries", str(tmp_path / "q.csv"), "--certificate"]
    assert run(["eval", "index", str(tmp_path / "i"), *arguments]) == 2
    assert "no query finds a box" in capsys.readouterr().err
    with pytest.raises(InputError, match="certificate 'loose'"):
        open_index(tmp_path / "i").search("a dog", certificate="loose")
