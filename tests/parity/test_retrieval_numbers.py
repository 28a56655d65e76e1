"""Metrics, fusion, multiple choice, answers and frame choice against what the public DemoVLP computes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.draws import Draws
from regionvlp.errors import ConfigError
from regionvlp.evaluation.answering import answer_accuracy
from regionvlp.evaluation.choice import choice_accuracy, option_scores
from regionvlp.evaluation.metrics import RetrievalMetrics, retrieval_metrics, text_to_video_ranks, video_to_text_ranks
from regionvlp.evaluation.retrieval import fuse_similarities

from .discovery import Case, cases
from .table import record

WITHIN = 1e-9


def arrays(case: Case) -> dict[str, np.ndarray]:
    with np.load(case.path(".npz"), allow_pickle=False) as file:
        return dict(file)


def config(values: dict[str, np.ndarray]) -> Any:
    return json.loads(str(values["config"]))


def public_metrics(similarity: np.ndarray, target: np.ndarray | None = None) -> RetrievalMetrics:
    return retrieval_metrics(similarity, np.arange(len(similarity)) if target is None else target, ties="public")


def number(found: float, expected: float) -> None:
    record(abs(found - expected), WITHIN)
    assert found == pytest.approx(expected, abs=WITHIN)


def matrix(found: np.ndarray, expected: np.ndarray) -> None:
    record(float(np.abs(found - expected).max()), WITHIN)
    np.testing.assert_allclose(found, expected, rtol=0, atol=WITHIN)


def agree(found: RetrievalMetrics, expected: dict[str, dict[str, float]]) -> None:
    assert expected.keys() == {"t2v", "v2t"}
    for direction in ("t2v", "v2t"):
        for name, value in expected[direction].items():
            number(found[direction][name], value)  # type: ignore[literal-required]


@pytest.mark.parametrize("case", cases("demovlp", "metric_"))
def test_metric(case: Case) -> None:
    if case.path(".npz").exists():
        check_retrieval(case)
        return
    values = json.loads(case.path(".json").read_text())
    if "mc_accuracy" in values["expected"]:
        check_choice(values)
    else:
        check_answers(values)


def check_choice(values: dict[str, Any]) -> None:
    questions = list(values["gt"])
    options = max(*values["gt"].values(), *values["pred"].values()) + 1
    scores = np.eye(options)[[values["pred"][question] for question in questions]]
    accuracy = choice_accuracy(scores, np.array([values["gt"][question] for question in questions]))
    record(abs(float(f"{accuracy:.2f}") - float(values["expected"]["mc_accuracy"])), 0)
    assert f"{accuracy:.2f}" == values["expected"]["mc_accuracy"]


def check_answers(values: dict[str, Any]) -> None:
    questions = [values["questions"][str(row["question_id"])] for row in values["predictions"]]
    found = answer_accuracy(
        [values["label2answer"][str(row["answer"])] for row in values["predictions"]],
        [question["answer"] for question in questions],
        [question["answer_type"] for question in questions],
    )
    expected = values["expected"]
    number(found["overall"] / 100, expected["overall_acc"])
    for name, (share, count) in expected["ratios"].items():
        kind = name.removesuffix("_ratio")
        number(found["by_type"].get(kind, 0) / 100, expected[f"{kind}_acc"])
        assert found["questions"].get(kind, 0) == count
        number(count / len(questions), share)


def check_retrieval(case: Case) -> None:
    values = arrays(case)
    texts, videos = values["sims"].shape
    target = np.repeat(np.arange(videos), texts // videos)
    # A masked caption is none: it is no query, and it is ranked behind all others.
    kept = values["query_masks"].ravel() > 0 if "query_masks" in values else np.ones(texts, bool)
    similarity, target = values["sims"][kept], target[kept]
    for ranks, name in (
        (text_to_video_ranks(similarity, target, "public"), "t2v_rank0"),
        (video_to_text_ranks(similarity, target), "v2t_rank0"),
    ):
        record(float(np.abs(ranks - values[name]).max()), 0)
        np.testing.assert_array_equal(ranks, values[name])
    agree(public_metrics(similarity, target), config(values))


@pytest.mark.parametrize("case", cases("demovlp", "retrieval_eval"))
def test_retrieval_eval(case: Case) -> None:
    values = arrays(case)
    expected = config(values)["metrics"]
    for fusion, key in (("aligned", "aligned_sum"), ("public_unaligned", "public_sum")):
        similarity = fuse_similarities(values["global_sim"], values["local_sim"], fusion)  # type: ignore[arg-type]
        matrix(similarity, values[key])
        agree(public_metrics(similarity), expected[fusion])


@pytest.mark.parametrize("case", cases("demovlp", "multiple_choice"))
def test_multiple_choice(case: Case) -> None:
    values = arrays(case)
    for rule in ("aligned", "public"):
        scores = option_scores(values["global_matrix"], values["local_matrix"], rule)  # type: ignore[arg-type]
        matrix(scores, values[f"{rule}_row"])
        assert scores.argmax() == config(values)[f"{rule}_answer"]


@pytest.mark.parametrize("case", cases("demovlp", "frame_sampling"))
def test_frame_sampling(case: Case) -> None:
    for row in json.loads(case.path(".json").read_text()):
        files, choice = row["files"], FrameChoice(row["segments"], "legacy")
        (middle,), (real,) = choice.slots([files])
        record(0.0 if middle[real].tolist() == row["uniform"] else 1.0, 0)
        assert middle[real].tolist() == row["uniform"]
        if row["train_raises"]:
            with pytest.raises(ConfigError):
                choice.slots([files], Draws((0,), [0]))
            continue
        # So many draws that missing one of n frames of a segment has no chance worth the name.
        count = 60 * max(len(reachable) for reachable in row["train_reachable"])
        draws, _ = choice.slots([files] * count, Draws((0,), np.arange(count)))
        assert [sorted(set(column.tolist())) for column in draws[:, real].T] == row["train_reachable"]
