"""Trains the bundled tiny Faster R-CNN on frames of the toy world.

The network is the one that extraction runs (family ``caffe`` at tiny size), trained end to end the usual way: RPN and
region head share the backbone, matching, sampling and box coding are torchvision's. Frames are drawn, not decoded.

Objects are the shapes of the toy world; attributes are its colours and textures in pairs ("red striped"), so that a
region's feature has to tell all three apart.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou

from regionvlp.config import load_config, read_yaml
from regionvlp.extract.detector import RegionDetector
from regionvlp.extract.detector.config import FAMILIES, DetectorConfig
from regionvlp.extract.detector.network import RegionNetwork
from regionvlp.extract.detector.preprocess import Resize, plan_resize, preprocess
from regionvlp.extract.detector.registry import SETTINGS_NAME, bundled_dir
from regionvlp.extract.detector.rpn import cell_anchors, propose, shifted_anchors
from regionvlp.extract.detector.weights import NORM_EPSILON
from regionvlp.pipelines.toy import world as toyworld
from regionvlp.progress import ProgressBar

log = logging.getLogger(__name__)

OBJECTS = tuple(toyworld.SHAPES)
ATTRIBUTES = tuple(f"{colour} {texture}" for colour in toyworld.COLOURS for texture in toyworld.TEXTURES)

PEAK_LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 2e-3, 1e-4, 5.0
FRAMES_PER_CLIP = 4
RPN_SAMPLES, HEAD_SAMPLES = 64, 32


@dataclass(frozen=True)
class Truth:
    """What is to be seen in one frame: O objects.

    Attributes:
        boxes: [O, 4] float32, ``x1 y1 x2 y2`` in resized pixels, edges (a box from 3 to 5 is two pixels wide).
        classes, attributes: [O] int64, from 0.
    """

    boxes: Tensor
    classes: Tensor
    attributes: Tensor


def train(config: DetectorConfig, *, steps: int, batch: int, seed: int) -> RegionNetwork:
    """Trains a network from scratch; the same seed gives the same weights on the same kind of machine."""
    torch.manual_seed(seed)
    network = RegionNetwork(config)
    _initialise(network)
    cell = torch.from_numpy(cell_anchors(config.rpn.anchors))
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1)
    batches = _batches(config, batch, seed)
    with ProgressBar("train", "steps", "frames") as bar:
        bar.begin(steps)
        for step in range(steps):
            frames, resize, truths = next(batches)
            losses = _losses(network, cell, frames, resize, truths)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            bar.advance(1, batch)
            if step % 100 == 99:
                log.info("step %d: %s", step + 1, {name: round(loss.item(), 3) for name, loss in losses.items()})
    return network.eval()


def save_detector(folder: Path, network: RegionNetwork, note: str) -> None:
    """Writes a detector's folder: settings, weights (float16, identity norms), vocabularies."""
    state = {name: value.half() for name, value in _with_norms(network).items()}
    save_file(state, folder / "model.safetensors")
    (folder / "objects.txt").write_text("\n".join(OBJECTS) + "\n", encoding="utf-8")
    (folder / "attributes.txt").write_text("\n".join(ATTRIBUTES) + "\n", encoding="utf-8")
    if folder.resolve() != bundled_dir("toy").resolve():
        shutil.copy(bundled_dir("toy") / SETTINGS_NAME, folder / SETTINGS_NAME)
    (folder / "README.md").write_text(note, encoding="utf-8")


@dataclass(frozen=True)
class Score:
    """How good a detector is on held-out toy frames, in percent.

    Attributes:
        proposal_recall: visible objects that one of the exported regions overlaps with IoU 0.5 or more.
        class_accuracy, attribute_accuracy: of the best-overlapping region of those objects.
        objects: how many visible objects were looked for.
    """

    proposal_recall: float
    class_accuracy: float
    attribute_accuracy: float
    objects: int


def score(detector: RegionDetector, clips: int = 200, seed: int = 0) -> Score:
    """Runs a detector over frames of the toy world's test split."""
    found = right_class = right_attribute = total = 0
    for clip in toyworld.clips(clips, split="test", seed=seed):
        moments = np.linspace(0, toyworld.NUM_FRAMES - 1, FRAMES_PER_CLIP).astype(int)
        for t, regions in zip(moments, detector.detect([clip.frames[t] for t in moments]), strict=True):
            for o, thing in enumerate(clip.objects):
                if np.isnan(clip.boxes[t, o, 0]):
                    continue
                total += 1
                overlap = box_iou(torch.from_numpy(clip.boxes[t, o][None]), _edges(torch.from_numpy(regions.boxes)))[0]
                if not len(overlap) or overlap.max() < 0.5:
                    continue
                best = int(overlap.argmax())
                found += 1
                right_class += OBJECTS[regions.class_ids[best]] == thing.shape
                right_attribute += ATTRIBUTES[regions.attribute_ids[best]] == f"{thing.colour} {thing.texture}"
    share = 100 / max(found, 1)
    return Score(100 * found / max(total, 1), share * right_class, share * right_attribute, total)


# Data


def _batches(config: DetectorConfig, batch: int, seed: int) -> Iterator[tuple[Tensor, Resize, list[Truth]]]:
    """Endless batches of [B, 3, h, w] network inputs with their truths: a few frames of each of ever new clips."""
    resize = plan_resize(toyworld.HEIGHT, toyworld.WIDTH, config.input)
    rng = np.random.default_rng(seed)
    pictures: list[NDArray[np.uint8]] = []
    truths: list[Truth] = []
    for clip in toyworld.clips(10**9, split="train", seed=seed + 1):
        for t in rng.choice(toyworld.NUM_FRAMES, batch // 4, replace=False):
            flip = bool(rng.random() < 0.5)
            pictures.append(clip.frames[t, :, ::-1] if flip else clip.frames[t])
            truths.append(_truth(clip, int(t), resize, flip))
        if len(pictures) >= batch:
            frames = torch.from_numpy(np.stack(pictures[:batch]))
            yield preprocess(frames, resize, config.input), resize, truths[:batch]
            pictures, truths = pictures[batch:], truths[batch:]


def _truth(clip: toyworld.ToyClip, t: int, resize: Resize, flip: bool) -> Truth:
    visible = [o for o in range(len(clip.objects)) if not np.isnan(clip.boxes[t, o, 0])]
    boxes = clip.boxes[t, visible].copy()
    if flip:
        boxes[:, [0, 2]] = toyworld.WIDTH - boxes[:, [2, 0]]
    boxes *= np.array([resize.scale_x, resize.scale_y] * 2, np.float32)
    things = [clip.objects[o] for o in visible]
    return Truth(
        torch.from_numpy(boxes.reshape(-1, 4)),
        torch.tensor([OBJECTS.index(thing.shape) for thing in things], dtype=torch.int64),
        torch.tensor([ATTRIBUTES.index(f"{thing.colour} {thing.texture}") for thing in things], dtype=torch.int64),
    )


# Losses


def _losses(
    network: RegionNetwork, cell: Tensor, images: Tensor, resize: Resize, truths: list[Truth]
) -> dict[str, Tensor]:
    res4 = network.res4(images.contiguous(memory_format=torch.channels_last))
    objectness, deltas = network.rpn(res4)
    losses = _rpn_losses(objectness, deltas, cell, truths)
    with torch.no_grad():
        proposals = [boxes for boxes, _ in propose(objectness, deltas, cell, resize, network.config)]
    return losses | _head_losses(network, res4, proposals, truths)


def _rpn_losses(objectness: Tensor, deltas: Tensor, cell: Tensor, truths: list[Truth]) -> dict[str, Tensor]:
    batch, _, height, width = objectness.shape
    anchors = _edges(shifted_anchors(cell, height, width))
    # Two channels an anchor, all backgrounds first: their difference is the logit of the foreground.
    logits = objectness.reshape(batch, 2, len(cell), height, width)
    logits = (logits[:, 1] - logits[:, 0]).permute(0, 2, 3, 1).reshape(batch, -1)
    deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
    matcher, coder = Matcher(0.6, 0.3, allow_low_quality_matches=True), BoxCoder((1.0, 1.0, 1.0, 1.0))
    sampler = BalancedPositiveNegativeSampler(RPN_SAMPLES, 0.5)
    score_terms, box_terms = [], []
    for image, truth in enumerate(truths):
        matched = _match(matcher, truth, anchors)
        labels = torch.where(matched >= 0, 1, torch.where(matched == Matcher.BELOW_LOW_THRESHOLD, 0, -1))
        positive, negative = (mask[0].nonzero().flatten() for mask in sampler([labels]))
        chosen = torch.cat((positive, negative))
        score_terms.append(functional.binary_cross_entropy_with_logits(logits[image, chosen], labels[chosen].float()))
        if len(positive):
            wanted = coder.encode_single(truth.boxes[matched[positive]], anchors[positive])
            box_terms.append(functional.smooth_l1_loss(deltas[image, positive], wanted, beta=1 / 9))
    boxes = torch.stack(box_terms).mean() if box_terms else deltas.sum() * 0
    return {"rpn_score_loss": torch.stack(score_terms).mean(), "rpn_box_loss": 2 * boxes}


def _head_losses(
    network: RegionNetwork, res4: Tensor, proposals: list[Tensor], truths: list[Truth]
) -> dict[str, Tensor]:
    matcher, coder = Matcher(0.5, 0.5, allow_low_quality_matches=False), BoxCoder(network.config.head.box_weights)
    sampler = BalancedPositiveNegativeSampler(HEAD_SAMPLES, 0.5)
    boxes, columns, attributes, wanted = [], [], [], []
    for found, truth in zip(proposals, truths, strict=True):
        candidates = torch.cat((found, _edges(truth.boxes, -1)))
        matched = _match(matcher, truth, _edges(candidates))
        positive, negative = (mask[0] for mask in sampler([(matched >= 0).long()]))
        chosen = (positive | negative).nonzero().flatten()
        boxes.append(candidates[chosen])
        # Index -1, "no object", reaches the entry appended at the end.
        nearest = matched[chosen].clamp(min=-1)
        columns.append(functional.pad(truth.classes + 1, (0, 1))[nearest])
        attributes.append(functional.pad(truth.attributes + 1, (0, 1))[nearest])
        targets = torch.cat((truth.boxes, truth.boxes.new_ones(1, 4)))[nearest]
        wanted.append(coder.encode_single(targets, _edges(candidates[chosen])))
    head = network.roi_heads
    features = head.features(res4, boxes, chunk=10**9)
    column, attribute = torch.cat(columns), torch.cat(attributes)
    real = column > 0
    losses = {"class_loss": functional.cross_entropy(head.class_logits(features), column)}
    assert head.attribute_head is not None
    scores = head.attribute_head(features[real], column[real])
    losses["attribute_loss"] = 0.5 * functional.cross_entropy(scores, attribute[real])
    deltas = head.box_deltas(features)[real, column[real] - 1]
    losses["box_loss"] = functional.smooth_l1_loss(deltas, torch.cat(wanted)[real], beta=1 / 9)
    return losses


def _match(matcher: Matcher, truth: Truth, candidates: Tensor) -> Tensor:
    """[M] int64: for each candidate [M, 4] the object it is matched with, or a negative number."""
    if not len(truth.boxes):
        return torch.full((len(candidates),), Matcher.BELOW_LOW_THRESHOLD)
    matched: Tensor = matcher(box_iou(truth.boxes, candidates))
    return matched


def _edges(boxes: Tensor, pixel: int = 1) -> Tensor:
    """Boxes that count pixels, inclusive, as edges: a pixel more to the right and below (or, with -1, back)."""
    return boxes + boxes.new_tensor((0, 0, pixel, pixel))


def toy_config() -> DetectorConfig:
    """What the bundled detector is, as its ``detector.yaml`` says: a family with other sizes."""
    settings = read_yaml(bundled_dir("toy") / SETTINGS_NAME)
    settings.pop("random_seed", None)
    family = FAMILIES[settings.pop("family")]
    return load_config(DetectorConfig, family.model_dump(), settings, source="the toy detector")


# Weights


def _initialise(network: RegionNetwork) -> None:
    """He initialisation; the last convolution of each block starts small, as there are no norms to keep it in check."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if name.endswith("conv3"):
                nn.init.normal_(module.weight, std=0.2 * (2 / module.in_channels) ** 0.5)
            if name.endswith(("objectness_logits", "anchor_deltas")):
                nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01 if name.endswith(("cls_score", "bbox_pred")) else 0.05)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        network.backbone.stem.conv1.weight /= 64  # grey levels, not unit variance


def _with_norms(network: RegionNetwork) -> dict[str, Tensor]:
    """The network's state as checkpoints have it: a norm after each convolution, here one that only adds the bias."""
    state = {}
    for name, value in network.state_dict().items():
        layer = name.removesuffix(".bias")
        normed = layer.rsplit(".", 1)[-1] in ("conv1", "conv2", "conv3", "shortcut")
        if normed and name.endswith(".bias"):
            state[f"{layer}.norm.weight"] = torch.full_like(value, (1 + NORM_EPSILON) ** 0.5)
            state[f"{layer}.norm.bias"] = value
            state[f"{layer}.norm.running_mean"] = torch.zeros_like(value)
            state[f"{layer}.norm.running_var"] = torch.ones_like(value)
        else:
            state[name] = value
    return {name: value.contiguous() for name, value in state.items()}
