"""What a configuration costs, part by part, and what its region features cost besides.

In: a training configuration. Out: parameters and FLOPs of a pair by closed form and by torch's counter, the paper's
table beside them, and the detector's work spread over the training that its features serve. Needs no weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from regionvlp.errors import ConfigError, InputError
from regionvlp.evaluation.tables import paper_cost
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.cost import FrameCost, counted_frame, frame_cost, known_config
from regionvlp.extract.detector.preprocess import plan_resize
from regionvlp.losses import filip_similarity, region_word_scores, taco_similarity
from regionvlp.losses.settings import LossSettings
from regionvlp.models import Encoded, RegionEncoder, RegionEncoderSettings, TextEncoder, TextEncoderSettings
from regionvlp.models.cost import alignment_macs, counted_flops, parameters, text_macs, video_macs
from regionvlp.models.text_encoder import with_vocabulary
from regionvlp.pipelines.output import many
from regionvlp.training.config import DemoVLPConfig, RunConfig
from regionvlp.training.settings import split_batch

BERT_WORDS = 30522  # entries of the vocabulary that published text encoders have
DETECTORS = ("vg-caffe", "toy")
TABLE_3 = {"frames": 8, "regions": 30, "tokens": 100}
FORWARD_AND_BACKWARD = 3  # times the forward pass
ALIGNMENT = "region-word alignment"
COMPARED = 16  # videos, and captions, among which the work of a pair is counted: some of it is an item's, not a pair's

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One component: its parameters, and its FLOPs by closed form and by torch's counter."""

    name: str
    parameters: int | None
    flops: int
    counted: int


def profile(
    config: RunConfig,
    source: str,
    console: Console,
    *,
    detector: str | None,
    frame_size: str,
    stored_frames: int,
    runs: int,
    epochs: int | None,
) -> dict[str, Any]:
    """Counts everything, says it on ``console`` and returns it; ``source`` is what the configuration is called.

    Raises:
        ConfigError: a configuration of another system. InputError: a detector or a frame size that cannot be.
    """
    if not isinstance(config, DemoVLPConfig):
        raise ConfigError(f"{source} is a configuration of {config.task}", "profile counts DemoVLP's so far")
    network = _detector(config, detector)
    width = config.model.video.feature_width
    if network.feature_width != width:
        log.warning("detector %s gives %d features, the model reads %d", network.name, network.feature_width, width)
    resized = plan_resize(*_size(frame_size), network.input)
    frame = resized.new_height, resized.new_width
    parts = encoder_parts(config)
    detector_parts = detector_parts_of(network, *frame, config.data.clips.frames)
    table_3 = paper_rows(parts, detector_parts, frame_cost(network, *frame))
    spent = feature_costs(config, parts, detector_parts, stored_frames, runs, epochs or config.train.epochs)
    console.print(f"{source}: {_input_line(config)}", markup=False)
    console.print(f"detector {network.name}, {network.rpn.proposals} proposals, frames of {frame[0]}x{frame[1]}")
    console.print(_parts_table(parts, detector_parts))
    if any(part.name == ALIGNMENT for part in parts):
        _say(console, f"{ALIGNMENT}: by formula as the public code writes it out, by the counter as it runs here.")
    console.print(_paper_table(table_3))
    frames, regions, tokens = TABLE_3.values()
    _say(
        console,
        f"Counted: DemoVLP's network here, {frames} frames of {regions} regions, a caption of {tokens} tokens. The "
        "paper's video figure is that of the linear layers, without attention's products. Its detector's 455.2 G and "
        "60.6 M fit no configuration of the Visual Genome Faster R-CNN that it names.",
    )
    _say_features(console, spent)
    return {
        "config": source,
        "detector": network.name,
        "frame": list(frame),
        "parts": [asdict(part) for part in parts],
        "detector_parts": [asdict(part) for part in detector_parts],
        "table_3": table_3,
        "features": spent,
    }


def encoder_parts(config: DemoVLPConfig) -> list[Part]:
    """The parts of a pair of one video and one caption, without the detector."""
    data, model = config.data, config.model
    text_settings = with_vocabulary(model.text, _vocabulary(config))
    with torch.device("meta"):
        video, text = RegionEncoder(model.video), TextEncoder(text_settings)
    shape = 1, data.clips.frames, data.clips.regions
    parts = [
        Part(
            "video encoder",
            parameters(video),
            2 * video_macs(model.video, data.clips.frames, data.clips.regions),
            counted_flops(_video_run(video.eval(), shape)),
        ),
        Part(
            "text encoder",
            parameters(text),
            2 * text_macs(text_settings, data.text_length),
            counted_flops(_text_run(text.eval(), data.text_length)),
        ),
    ]
    width = model.video.joint_width
    one = torch.ones(1, width)
    if config.loss.use_global:
        parts.append(Part("global similarity", None, 2 * width, counted_flops(lambda: one @ one.T)))
    if config.loss.use_local:
        parts.append(_local_part(config.loss, data.clips.frames * data.clips.regions, data.text_length - 1, width))
    return parts


def detector_parts_of(network: DetectorConfig, height: int, width: int, frames: int) -> list[Part]:
    """The detector's parts on a video of F ``frames``, each resized to ``height`` x ``width``."""
    formula = frame_cost(network, height, width)
    counted, size = counted_frame(network, height, width)
    names = {"backbone": "stem to res4", "proposals": "proposals", "res5": "res5", "scores": "classes, attributes"}
    parts = [
        Part(title, None, 2 * frames * getattr(formula, name), 2 * frames * getattr(counted, name))
        for name, title in names.items()
    ]
    whole = f"detector, {many(frames, 'frame')}"
    return [Part(whole, size, 2 * frames * formula.total, 2 * frames * counted.total), *parts]


def paper_rows(parts: list[Part], detector: list[Part], frame: FrameCost) -> list[dict[str, Any]]:
    """Table 3 of the paper, its network as counted here, and the configuration; FLOPs in 1e9, parameters in 1e6."""
    own = {"video": parts[0], "text": parts[1], "detector": detector[0]}
    frames, regions, tokens = TABLE_3.values()
    video = RegionEncoderSettings(loc_dim=6, attention="frame", final_norm=False, frames=frames)
    text = TextEncoderSettings(vocab_size=BERT_WORDS)
    with torch.device("meta"):
        sizes = {"video": parameters(RegionEncoder(video)), "text": parameters(TextEncoder(text))}
    linear = {
        "video": 2 * video_macs(video, frames, regions, attention_products=False),
        "text": 2 * text_macs(text, tokens, attention_products=False),
    }
    public = frame_cost(known_config("vg-caffe"), *_table_3_frame())
    counts = {
        "video": 2 * video_macs(video, frames, regions),
        "text": 2 * text_macs(text, tokens),
        "detector": 2 * frames * public.total,
    }
    sizes["detector"] = counted_frame(known_config("vg-caffe"), *_table_3_frame())[1]
    rows = []
    for name, printed in paper_cost().items():
        whole = name == "all"
        rows.append(
            {
                "component": name,
                **printed,
                "counted_flops": (sum(counts.values()) if whole else counts[name]) / 1e9,
                "counted_linear_flops": None if whole or name not in linear else linear[name] / 1e9,
                "counted_parameters": (sum(sizes.values()) if whole else sizes[name]) / 1e6,
                "own_flops": sum(p.flops for p in own.values()) / 1e9 if whole else own[name].flops / 1e9,
                "own_parameters": (sum(p.parameters or 0 for p in own.values()) if whole else own[name].parameters or 0)
                / 1e6,
            }
        )
    return rows


def feature_costs(
    config: DemoVLPConfig, parts: list[Part], detector: list[Part], stored: int, runs: int, epochs: int
) -> dict[str, Any]:
    """What extracting a video's features once adds to every time that training visits it.

    A visit costs three forward passes of both encoders, and of the similarities with every caption that the loss
    contrasts it with: those of a part of the batch, or of a group in it.
    """
    negatives, part = config.loss.contrasts, split_batch(config.train.batch_size, 1, config.train.accumulate)
    captions = part if negatives == "global" else negatives
    encoders = sum(part.flops for part in parts if part.parameters is not None)
    pairs = sum(part.counted for part in parts if part.parameters is None) * captions
    visit = FORWARD_AND_BACKWARD * (encoders + pairs)
    extraction = detector[0].flops // config.data.clips.frames * stored
    rows = []
    for trainings, passes in sorted({(1, 1), (1, epochs), (runs, epochs)}):
        visits = trainings * passes
        rows.append(
            {
                "runs": trainings,
                "epochs": passes,
                "detector_flops_per_visit": extraction / visits,
                "times_training": extraction / visits / visit,
            }
        )
    return {
        "stored_frames": stored,
        "extraction_flops": extraction,
        "batch_size": config.train.batch_size,
        "negatives": negatives,
        "captions_compared": captions,
        "training_flops_per_visit": visit,
        "visits_to_even": extraction / visit,
        "rows": rows,
    }


def _local_part(loss: LossSettings, m: int, words: int, width: int) -> Part:
    """What compares the M regions of a video with the words of a caption."""
    ours, theirs = _ones(m, width), _ones(words, width)
    cosines = 2 * m * words * width
    kinds: dict[str, tuple[str, int, Callable[[], Any]]] = {
        "region_word": (
            ALIGNMENT,
            2 * alignment_macs(m, words, width),
            lambda: region_word_scores(video=ours, text=theirs, settings=loss.region_word),
        ),
        # Each direction takes the best of cosines of its own; the formula leaves the mean over them out.
        "filip": ("FILIP", 2 * cosines, lambda: filip_similarity(video=ours, text=theirs)),
        "taco": ("TACo", cosines, lambda: taco_similarity(video=ours, text=theirs)),
    }
    name, flops, run = kinds[loss.local]
    return Part(name, None, flops, counted_flops(run) // COMPARED**2)


def _detector(config: DemoVLPConfig, name: str | None) -> DetectorConfig:
    """The detector named, else the first that gives features of the width that the model reads."""
    width = config.model.video.feature_width
    if name is not None:
        return known_config(name)
    for known in DETECTORS:
        found = known_config(known)
        if found.feature_width == width:
            return found
    raise InputError(f"no known detector gives {width} features", "name one with --detector")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise InputError(f"--frame-size {text} is no size", "write HEIGHTxWIDTH, e.g. 360x640")
    return int(height), int(width)


def _table_3_frame() -> tuple[int, int]:
    """The size the public detector brings a 16:9 frame to; the paper does not say which sizes it counted."""
    resized = plan_resize(360, 640, known_config("vg-caffe").input)
    return resized.new_height, resized.new_width


def _vocabulary(config: DemoVLPConfig) -> int:
    """Rows of the word table: a published model's, or the most that a tokenizer trained here may have."""
    published = config.tokenizer.name is not None or config.model.text.pretrained is not None
    return config.model.text.vocab_size or (BERT_WORDS if published else config.tokenizer.vocab_size)


def _video_run(video: RegionEncoder, shape: tuple[int, int, int]) -> Callable[[], Encoded]:
    features = torch.zeros(*shape, video.settings.feature_width, device="meta")
    location = torch.zeros(*shape, video.settings.loc_dim, device="meta")
    mask = torch.ones(shape, dtype=torch.bool, device="meta")
    return lambda: video(features, location, mask)


def _text_run(text: TextEncoder, tokens: int) -> Callable[[], torch.Tensor]:
    # Without a mask: transformers looks into it, and meta tensors hold nothing. It changes no product.
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    return lambda: text.projection(text.model(input_ids=ids).last_hidden_state)


def _ones(tokens: int, width: int) -> Encoded:
    shape = COMPARED, tokens
    return Encoded(torch.ones(COMPARED, width), torch.ones(*shape, width), torch.ones(shape, dtype=torch.bool))


def _input_line(config: DemoVLPConfig) -> str:
    data = config.data
    caption = f"a caption of {'' if data.pad_text else 'up to '}{data.text_length} tokens"
    return f"{many(data.clips.frames, 'frame')} of {data.clips.regions} regions, {caption}"


def _parts_table(parts: list[Part], detector: list[Part]) -> Table:
    table = Table(title="a pair of one video and one caption", title_justify="left")
    table.add_column("")
    for heading in ("parameters", "FLOPs", "by torch's counter"):
        table.add_column(heading, justify="right")
    without = _sum("without the detector", parts)
    whole, *pieces = detector
    inner = [replace(part, name=f"  {part.name}") for part in pieces]
    for part in (*parts, without, whole, *inner, _sum("with the detector", [without, whole])):
        size = "" if part.parameters is None else f"{part.parameters / 1e6:,.2f} M"
        style = "bold" if part.name.startswith("with") else None
        table.add_row(part.name, size, _short(part.flops), _short(part.counted), style=style)
    return table


def _sum(name: str, parts: list[Part]) -> Part:
    sizes = sum(part.parameters or 0 for part in parts)
    return Part(name, sizes, sum(part.flops for part in parts), sum(part.counted for part in parts))


def _paper_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="table 3 of the paper: FLOPs, parameters", title_justify="left", show_lines=True)
    table.add_column("", no_wrap=True)
    for heading in ("Frozen", "DemoVLP", "counted", "linear layers", "this one"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            _cell(row["frozen_flops"], row["frozen_parameters"]),
            _cell(row["demovlp_flops"], row["demovlp_parameters"]),
            _cell(row["counted_flops"], row["counted_parameters"]),
            _cell(row["counted_linear_flops"], None),
            _cell(row["own_flops"], row["own_parameters"]),
        ]
        table.add_row(row["component"], *cells)
    return table


def _cell(flops: float | None, size: float | None) -> str:
    if flops is None:
        return ""
    return _short(flops * 1e9) + ("" if size is None else f"\n{size:,.1f} M")


def _say_features(console: Console, spent: dict[str, Any]) -> None:
    table = Table(title="what region features add to training", title_justify="left")
    for heading in ("trained", "detector, per visit", "times the training"):
        table.add_column(heading, justify="right" if heading != "trained" else "left")
    for row in spent["rows"]:
        trained = f"{many(row['runs'], 'run')} of {many(row['epochs'], 'epoch')}"
        share = row["times_training"]
        times = f"{share:,.0f}" if share >= 10 else f"{share:.2g}"
        table.add_row(trained, _short(row["detector_flops_per_visit"]), times)
    console.print(table)
    visit, even = _short(spent["training_flops_per_visit"]), f"{spent['visits_to_even']:,.0f}"
    _say(
        console,
        f"Extracting {many(spent['stored_frames'], 'frame')} of a video once: {_short(spent['extraction_flops'])}. "
        f"One visit in training: {visit} (three forward passes, compared with {spent['captions_compared']:,} captions: "
        f"a batch of {spent['batch_size']:,}, loss.negatives {spent['negatives']}). "
        f"The detector costs as much as {even} visits.",
    )


def _say(console: Console, text: str) -> None:
    """Prints sentences within the width of the console."""
    console.print(text, soft_wrap=False, markup=False)


def _short(flops: float) -> str:
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if flops >= size:
            return f"{flops / size:,.2f} {unit}"
    return f"{flops:,.0f}"
