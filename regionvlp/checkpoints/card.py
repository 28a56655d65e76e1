"""The model card of a shared checkpoint: ``README.md`` with the front matter that the Hugging Face hub reads.

In: configuration, detector, figures and data of a checkpoint. Out: Markdown. What only a person can know is marked
"(fill in)".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from regionvlp import __version__
from regionvlp.data.settings import SourceSettings
from regionvlp.store.markdown import table
from regionvlp.training.config import RunConfig
from regionvlp.weights.hub_models import HubName

CARD = "README.md"
# Data sets whose annotations are known by their format; others go by the name of their file.
_KNOWN = {"msrvtt": "msr-vtt", "msvd": "msvd", "didemo": "didemo", "lsmdc": "lsmdc"}


def card_text(
    name: HubName,
    config: RunConfig,
    detector: Mapping[str, Any],
    *,
    step: int | None,
    why: str,
    metrics: Mapping[str, float],
    data: Mapping[str, Any],
    parameters: int,
    licence: str,
) -> str:
    """The card; see :class:`regionvlp.checkpoints.sharing.Shareable` for what is not said here.

    Args:
        name: what the model is opened by. config: without this machine. detector: whose regions it reads.
        parameters: how many weights it has. licence: an identifier of the hub's, or ``unknown``.
    """
    datasets = [dataset_name(source) for source in config.data.sources]
    front: dict[str, Any] = {
        "license": licence,
        "library_name": "regionvlp",
        "tags": ["regionvlp", config.task, "video-text-retrieval", "region-features"],
        "datasets": list(dict.fromkeys(datasets)),
    }
    if metrics:
        front["model-index"] = [_index(name, metrics)]
    parts = (
        ["---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", ""],
        [f"# {name.repo_id.split('/')[1]}", "", f"A {config.task} of {parameters:,} parameters that ranks videos by "
         "sentences, and says which regions answer which words. It reads regions of frames, not pixels."],
        ["", "## How to open it", "", *_opening(name)],
        ["", "## Which videos it reads", "", *table(_reads(config, detector))],
        ["", "## What it learnt from", "", *table(_learnt(config, datasets, data))],
        ["", "## How it was trained", "", *table(_trained(config, step, why))],
        ["", "## What it reaches", "", *_reaches(metrics)],
        ["", "## Limits", "", *_limits(licence)],
    )  # fmt: skip
    return "\n".join(line for part in parts for line in part) + "\n"


def dataset_name(source: SourceSettings) -> str:
    """What to call a source's data set: by its format where that says it, else by its file."""
    return _KNOWN.get(source.format, PurePath(source.captions).stem.lower())


def _index(name: HubName, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The figures in the form that the hub lists them in."""
    return {
        "name": name.repo_id.split("/")[1],
        "results": [
            {
                "task": {"type": "video-text-retrieval", "name": "video-text retrieval"},
                "dataset": {"type": "held-out", "name": "what the run held out"},
                "metrics": [{"type": key, "name": key, "value": round(value, 4)} for key, value in metrics.items()],
            }
        ],
    }


def _opening(name: HubName) -> Iterator[str]:
    yield "```python"
    yield "import regionvlp"
    yield f'checkpoint = regionvlp.load_checkpoint("{name}")'
    yield 'texts = checkpoint.encode_text(["a dog jumps into the water"])'
    yield 'shards = regionvlp.open_shards("SHARDS")  # as `regionvlp extract` makes them, with the detector below'
    yield "videos = checkpoint.encode_videos(shards.video_ids, shards)"
    yield "```"
    yield ""
    yield f"`regionvlp eval csv --checkpoint {name}`, `regionvlp index --encoder {name}` and"
    yield f"`regionvlp finetune --init {name}` take it as well. Four files are read, and none of them can hold code."


def _reads(config: RunConfig, detector: Mapping[str, Any]) -> dict[str, str]:
    clips = config.data.clips
    regions = getattr(clips, "regions", None)
    known = {key: value for key, value in detector.items() if value is not None}
    return {
        "a clip": f"{clips.frames} frames" + (f" of {regions} regions" if regions else ""),
        "a caption": f"{config.data.text_length} tokens at most",
        **({f"detector: {key}": _words(value) for key, value in known.items()} or {"detector": "unknown"}),
    }


def _learnt(config: RunConfig, datasets: list[str], data: Mapping[str, Any]) -> dict[str, str]:
    """Each source by name, split and what the run counted in it."""
    known = data.get("sources", [])
    rows = {}
    for number, (dataset, source) in enumerate(zip(datasets, config.data.sources, strict=True)):
        counts = known[number] if number < len(known) else {}
        told = [f"split {source.split}"] if source.split else []
        told += [f"{key} {value:,}" for key, value in counts.items() if isinstance(value, int)]
        rows[f"{number + 1}: {dataset}"] = ", ".join(told) or "all of it"
    rows["started from"] = str(config.init) if config.init else "(fill in, where it was fine-tuned)"
    return rows


def _trained(config: RunConfig, step: int | None, why: str) -> dict[str, str]:
    train, optim = config.train, config.optim
    return {
        "this checkpoint": why if step is None else f"after {step:,} steps: {why}",
        "batch": f"{train.batch_size} pairs over all processes",
        "learning rate": f"{optim.lr:g}, schedule {optim.schedule}",
        "precision, seed": f"{train.precision}, {train.seed}",
        "loss": _words(config.loss.model_dump(mode="json")),
        "everything else": "`config.yaml`",
        "made by": f"regionvlp {__version__}",
    }


def _reaches(metrics: Mapping[str, float]) -> Iterator[str]:
    if not metrics:
        yield "The run measured nothing."
        return
    yield "On what the run held out, after this step (recalls in percent, ranks from 1; ties count by their average):"
    yield ""
    yield from table({key: f"{value:.4g}" for key, value in metrics.items()})
    yield ""
    yield "The checkpoint may have been chosen by these very figures."


def _limits(licence: str) -> Iterator[str]:
    yield "- It knows what its detector sees, and the words of its captions; biases of both are its own."
    yield "- Features of another detector are refused. Scores order videos; they are no probabilities."
    if licence == "unknown":
        yield "- No licence was given: (fill in). Licences of the data and of the weights it started from may bind it."


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
