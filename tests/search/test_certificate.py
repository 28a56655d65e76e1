"""What a result is without a region: beside an index that is made anew without it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import hub_models
import numpy as np
import pytest
from PIL import Image

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.search.certificate import Certifier, How
from regionvlp.search.clips import ClipInput, Evidence, ShardClips, names
from regionvlp.search.deletion import correlation, deletion
from regionvlp.search.encoders.base import unit
from regionvlp.search.encoders.sentences import SentenceEncoder
from regionvlp.search.index import Index, open_index
from regionvlp.search.reencoding import clip_input, without
from search.worlds import FRAMES, WORLD, video, write_shards

MORE = {f"more/{i}.mp4": labels for i, labels in enumerate((["dog"], ["ball", "tree"], ["red car", "dog"], ["person"]))}
CLIPS: Mapping[str, Sequence[str]] = {**WORLD, **MORE}


def index_of(folder: Path, clips: Mapping[str, Sequence[str]], encoders: Sequence[str]) -> Index:
    write_shards(folder / "shards", [video(name, labels) for name, labels in clips.items()])
    options = [part for name in encoders for part in ("--encoder", name)]
    assert run(["index", "--shards", str(folder / "shards"), "--out", str(folder / "i"), *options]) == 0
    return open_index(folder / "i")


def certifier(index: Index, query: str, how: How, top: int = 3) -> Certifier:
    return index.find([encoder.encode_queries([query])[0] for encoder in index.encoders], top).certifier(index, how)


@pytest.mark.parametrize("kinds", [("words",), ("sentences",), ("words", "sentences")])
def test_encoded_again_it_is_an_index_without_the_region(
    tmp_path: Path, sentences: Path, kinds: tuple[str, ...]
) -> None:
    """Of one clip all regions of a label go, so that the label was never there."""
    encoders = [{"words": "labels", "sentences": f"labels:{sentences}"}[kind] for kind in kinds]
    index = index_of(tmp_path / "whole", CLIPS, encoders)
    query = "a red dog with the ball"
    results = index.search(query, top=9).results
    for label in ("red dog", "ball"):
        left = [one for one in CLIPS["park/dog.mp4"] if one != label]
        other = index_of(tmp_path / label, {**CLIPS, "park/dog.mp4": left}, encoders)
        row = index.row("park/dog.mp4")
        drop = {i for i, name in enumerate(index.evidence(row).labels) if name == label}
        assert len(drop) == FRAMES
        ((score, rank),) = found(certifier(index, query, "reencode", 9), row, [drop])
        expected = {one.clip_id: (one.score, k) for k, one in enumerate(other.search(query, top=9).results, start=1)}
        assert score == pytest.approx(expected["park/dog.mp4"][0], abs=2e-3)
        if len(kinds) == 1:  # together they depend on how the others rank, which an index made anew changes
            assert rank == expected["park/dog.mp4"][1]
        (cheap,) = found(certifier(index, query, "held", 9), row, [drop])
        if kinds == ("words",):
            kept = [w for w in ("red", "dog", "ball") if w in " ".join(left)]
            assert cheap[0] == pytest.approx(sum(index.words.match(w)["park/dog.mp4"] for w in kept), abs=1e-5)
        # As the answer tells it, all boxes of the word at once.
        word = next(w for w in results[0].words if w.word == label.split()[-1])
        assert (word.score_without, word.rank_without) == (pytest.approx(cheap[0], abs=1e-5), cheap[1])
        assert word.matters == (cheap[1] > 1)


def test_held_of_a_sentence_of_labels_is_the_mean_of_what_is_left(tmp_path: Path, sentences: Path) -> None:
    index = index_of(tmp_path, CLIPS, [f"labels:{sentences}"])
    query = index.encoders[0].encode_queries(["a red dog with the ball"])[0].pooled
    row, reader = index.row("park/dog.mp4"), SentenceEncoder(sentences)
    sentence, *labels = reader.encode(["red dog, ball", "red dog", "ball"])
    weights = names(index.evidence(row), 0.15)
    for gone, kept in ((1, 0), (0, 1)):
        drop = {i for i, name in enumerate(index.evidence(row).labels) if name == ("red dog", "ball")[gone]}
        ((score, _),) = found(certifier(index, "a red dog with the ball", "held"), row, [drop])
        assert score == pytest.approx(float(unit(sentence + labels[kept]) @ query), abs=1e-3)
    assert list(weights) == ["red dog", "ball"]


def found(one: Certifier, row: int, drops: Sequence[Collection[int]]) -> list[tuple[float, int]]:
    told = one.without(row, drops)
    assert None not in told
    return told  # type: ignore[return-value]


def test_without_nothing_every_result_is_where_it_is(tmp_path: Path, sentences: Path) -> None:
    for encoders in (["labels"], [f"labels:{sentences}"], ["labels", f"labels:{sentences}"]):
        index = index_of(tmp_path / f"{len(encoders)}{encoders[0][-4:]}", CLIPS, encoders)
        for query in ("a red dog", "nothing of it"):
            told = index.search(query, top=9)
            one = certifier(index, query, "held", 9)
            for rank, result in enumerate(told.results, start=1):
                ((score, place),) = found(one, index.row_of(result.clip_id), [set()])
                assert score == pytest.approx(result.score, abs=1e-6)
                assert place == rank


def test_filters_hold_and_kinds_are_told(tmp_path: Path) -> None:
    index = index_of(tmp_path, CLIPS, ["labels"])
    told = index.search("red dog and ball", top=9)
    assert told.certificate == "held"
    all_of_it = next(word for word in told.results[0].words if word.word == "dog")
    inside = index.search("red dog and ball", top=9, folder="park")
    among = next(word for word in inside.results[0].words if word.word == "dog")
    assert inside.results[0].clip_id == told.results[0].clip_id == "park/dog.mp4"
    assert all_of_it.rank_without is not None
    assert among.rank_without == 1 < all_of_it.rank_without
    assert [box.matters for box in all_of_it.boxes] == [False, False]  # the other frame has a dog as well
    bare = index.search("red dog and ball", top=9, certificate="none")
    assert bare.certificate == "none"
    assert bare.results[0].words[0].boxes[0].matters is None
    assert index.search(like="park/dog.mp4").certificate == "none"


def pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = np.repeat(np.repeat(rng.integers(0, 255, (4, 4, 3)), 16, 0), 16, 1).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")


@pytest.fixture
def looked(tmp_path: Path) -> Index:
    """Six pictures of sixteen colours, by a model that looks at them."""
    hub_models.siglip(tmp_path / "model", second=True)
    (tmp_path / "v").mkdir()
    pictures(tmp_path / "v")
    options = ["--encoder", f"hub:{tmp_path / 'model'}", "--tokens", "--frames", "2"]
    assert run(["index", "--videos", str(tmp_path / "v"), "--out", str(tmp_path / "i"), *options]) == 0
    return open_index(tmp_path / "i")


def test_held_is_the_score_of_the_tokens_that_are_left(looked: Index) -> None:
    query = looked.encoders[0].encode_queries(["a red car on the road"])[0]
    told = looked.search("a red car on the road", top=6)
    scores = {result.clip_id: result.score for result in told.results}
    one = certifier(looked, "a red car on the road", "held", 6)
    for result in told.results[:3]:
        row = looked.row_of(result.clip_id)
        (stored,) = looked.tokens(0, [row]) or []
        pooled = looked.galleries[0].vectors(np.array([row]))
        drops: list[set[int]] = [{0}, {3, 7}, {1, 2, 15}]
        for drop, (score, rank) in zip(drops, found(one, row, drops), strict=True):
            kept = [i for i in range(16) if i not in drop]
            tokens = stored.tokens[kept][None].astype(np.float32)
            expected = looked.encoders[0].token_scores(query, tokens, np.ones((1, len(kept)), np.bool_), pooled)
            assert score == pytest.approx(float(expected[0]), abs=1e-6)
            better = [other for clip, other in scores.items() if clip != result.clip_id and other > score]
            assert rank == 1 + len(better)
        for word in result.words:
            for box in word.boxes:
                ((score, rank),) = found(one, row, [{box.region}])
                assert (box.score_without, box.rank_without) == (pytest.approx(score, abs=1e-6), rank)


def test_encoded_again_a_picture_is_painted_over(looked: Index, tmp_path: Path) -> None:
    query = "a red car on the road"
    best = looked.search(query, top=1).results[0]
    row, region = looked.row_of(best.clip_id), 6
    x1, y1, x2, y2 = looked.evidence(row).boxes[region].astype(int)
    with Image.open(best.path) as opened:
        picture = np.array(opened)
    picture[y1:y2, x1:x2] = picture.reshape(-1, 3).mean(0).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "v" / best.clip_id)
    options = ["--encoder", f"hub:{tmp_path / 'model'}", "--tokens", "--frames", "2"]
    assert run(["index", "--videos", str(tmp_path / "v"), "--out", str(tmp_path / "other"), *options]) == 0
    results = open_index(tmp_path / "other").search(query, top=6).results
    expected = {result.clip_id: result.score for result in results}[best.clip_id]
    exact = certifier(looked, query, "reencode", 6)
    Image.new("RGB", (40, 40)).save(best.path)  # another one
    with pytest.raises(InputError, match="not what was indexed"):
        exact.without(row, [{region}])
    Path(best.path).unlink()
    with pytest.raises(InputError, match="cannot look"):
        exact.without(row, [{region}])
    pictures(tmp_path / "v")
    ((score, _),) = found(exact, row, [{region}])
    assert score == pytest.approx(expected, abs=1e-3)
    assert score != pytest.approx(best.score, abs=1e-4)


def test_regions_that_never_were_leave_the_others_in_order(tmp_path: Path) -> None:
    first = write_shards(tmp_path / "a", [video("x.mp4", ["red dog", "ball", "cat"])])
    second = write_shards(tmp_path / "b", [video("x.mp4", ["tree", "car"])], detector="other")
    source = ShardClips([first, second])
    whole = source.read(source.clips()[0])
    for drop in ({0}, {1, 3}, {6, 9}, {0, 1, 2, 7}, set(range(10))):
        less: ClipInput = without(whole, drop)
        same_evidence(less.evidence, whole.evidence.without(drop))
        kept = [i for i in range(6) if i not in drop]
        features = whole.regions[0].features[whole.regions[0].mask()]
        assert np.array_equal(less.regions[0].features[less.regions[0].mask()], features[kept])
        assert not less.regions[0].features[~less.regions[0].mask()].any()
    assert whole.regions[0].num_regions.tolist() == [3, 3]


def same_evidence(one: Evidence, other: Evidence) -> None:
    assert list(one.labels) == list(other.labels)
    for name in ("frame", "boxes", "scores"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_what_a_clip_was_made_of_is_read_again(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    index = index_of(tmp_path, CLIPS, ["labels"])
    row = index.row("road/car.mp4")
    assert list(clip_input(index, row, looks=False).evidence.labels) == list(index.evidence(row).labels)


def test_answers_hang_on_what_is_shown(tmp_path: Path) -> None:
    index = index_of(tmp_path, {f"{a}{b}.mp4": [a, b] for a in ("dog", "cat", "car") for b in ("tree", "ball")},
                     ["labels"])  # fmt: skip
    told = deletion(index, ["a dog by a tree", "the cat and the ball", "nothing"])
    assert told["queries"] == 2
    last = told["curve"][-1]
    assert last["regions"] == 4
    assert last["shown"] == last["random"] == 100  # there are no other regions
    assert told["agreement"]["same_rank"] > 90
    assert deletion(index, ["a dog"], exact=False)["agreement"] is None


def test_rank_correlation_is_that_of_ranks() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, 50).astype(float), rng.integers(0, 6, 50).astype(float)

    def rank(values: np.ndarray, i: int) -> float:
        return 1 + sum(v < values[i] for v in values) + (sum(v == values[i] for v in values) - 1) / 2

    ranks = [[rank(values, i) for i in range(50)] for values in (one, other)]
    assert correlation(one, other) == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert correlation(one, 3 * one + 1) == pytest.approx(1)
    assert np.isnan(correlation(one, np.ones(50)))
