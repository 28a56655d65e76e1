"""The region detector: frames in, regions out.

Shape letters: B frames of one size, H, W their size, N proposals of a frame, K regions of a batch, C feature width,
O object classes. In: [H, W, 3] uint8 red-green-blue frames of any sizes. Out: one
:class:`~regionvlp.regions.FrameRegions` per frame, in their order.

One batch runs through ``preprocess``, ``RegionNetwork.res4``, ``RegionNetwork.rpn``, ``propose``,
``RegionHead.features`` and ``select``; each is a function of the stage before it and is tested alone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regionvlp.config import merge
from regionvlp.devices import pick_device
from regionvlp.errors import ConfigError, VideoError
from regionvlp.extract.detector.execution import (
    SMALLEST_CHUNK,
    compile_res5,
    frames_at_once,
    is_out_of_memory,
    regions_at_once,
    to_device,
    to_main_memory,
)
from regionvlp.extract.detector.fetch import obtain_detector
from regionvlp.extract.detector.head import object_probabilities
from regionvlp.extract.detector.network import build_network
from regionvlp.extract.detector.precision import (
    Overflows,
    StageTypes,
    choose_types,
    exact_float32,
    overflowed,
    sums_of,
)
from regionvlp.extract.detector.preprocess import Resize, plan_resize, preprocess
from regionvlp.extract.detector.resnet import Backbone
from regionvlp.extract.detector.results import frame_regions, keep_all, no_regions
from regionvlp.extract.detector.selection import Selection, select
from regionvlp.extract.detector.selection_batched import suppressed_at_once
from regionvlp.extract.detector.vocabulary import read_names
from regionvlp.extract.detector.weights import Weights, load_weights
from regionvlp.regions import FrameRegions

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]


class RegionDetector:
    """A Visual Genome Faster R-CNN that turns frames into regions; make one with :meth:`load`.

    Attributes:
        config: every convention and number of the detector.
        object_names, attribute_names: the vocabularies, a line each with its synonyms, or None where none came along.
        max_batch: the most frames that run at once. chunk: the most regions that pass res5 at once.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "auto",
        precision: str = "auto",
        compile: str | bool = "auto",
        backend: str = "native",
        object_names: list[str] | None = None,
        attribute_names: list[str] | None = None,
        max_batch: int | None = None,
        chunk: int | None = None,
    ) -> None:
        self.config = weights.config
        self.device = pick_device(device)
        self.object_names, self.attribute_names = object_names, attribute_names
        if backend == "detectron2" and precision not in ("auto", "float32"):
            raise ConfigError("the detectron2 backend runs in float32 alone", "use detector.precision=float32")
        types = choose_types("float32" if backend == "detectron2" else precision, self.device, self.feature_width)
        self.max_batch = max_batch or frames_at_once(self.device)
        self.chunk = chunk or regions_at_once(self.config, types.res5, self.device)
        self._weights_identity = weights.identity()
        self.backend = backend
        self.network, anchors = build_network(weights, backend)
        self.anchors = anchors.to(self.device)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.network.set_types(types)
        self._overflows = Overflows(self.config.name)
        if compile is True or (compile == "auto" and self.device.type == "cuda"):
            compile_res5(self.network.roi_heads, self.chunk, required=compile is True)

    @classmethod
    def load(
        cls,
        name_or_path: str = "auto",
        *,
        device: str = "auto",
        regions: int | None = None,
        selection: str | None = None,
        proposals: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        weights_dir: Path | None = None,
        precision: str = "auto",
        compile: str | bool = "auto",
        backend: str = "native",
        max_batch: int | None = None,
    ) -> RegionDetector:
        """Loads a detector.

        Args:
            name_or_path: ``auto``, ``toy``, another name of ``catalogue``, a detector's folder or a weights file.
                ``vg-hub`` is fetched where it is missing, and so is ``auto`` where neither it nor ``vg-caffe`` is here.
            device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
            regions: R, the most regions that a frame keeps. proposals: N, the most that pass the region head.
            selection: ``public``, ``suppressed``, ``best_class`` or ``detections`` (see ``SelectionConfig``).
            overrides: nested values of any key of ``DetectorConfig``; the named arguments win over them.
            weights_dir: where named weights lie (``$REGIONVLP_WEIGHTS``, else the user's cache).
            precision: ``auto``, ``float32``, ``fp16`` or ``bf16`` (see ``precision.choose_types``).
            compile: whether ``torch.compile`` makes res5 faster; ``auto`` tries it on CUDA.
            backend: ``native``, or ``detectron2`` where that can be imported.
            max_batch: the most frames that run at once; by default 8 on a CPU, 32 on CUDA.

        Raises:
            WeightsError: no such detector, no weights, or weights that do not fit.
            ConfigError: a setting or the device is wrong.
        """
        named: dict[str, Any] = {"selection": {}, "rpn": {}}
        if regions is not None:
            named["selection"]["regions"] = regions
        if selection is not None:
            named["selection"]["rule"] = selection
        if proposals is not None:
            named["rpn"]["proposals"] = proposals
        pick_device(device)  # before anything large is read
        files = obtain_detector(name_or_path, weights_dir)
        weights = load_weights(files, merge(overrides or {}, named))
        head = weights.config.head
        return cls(
            weights,
            device=device,
            precision=precision,
            compile=compile,
            backend=backend,
            object_names=read_names(files.objects, head.classes),
            attribute_names=read_names(files.attributes, head.attributes),
            max_batch=max_batch,
        )

    @property
    def feature_width(self) -> int:
        """C, the width of a region's feature."""
        return self.config.feature_width

    def identity(self) -> dict[str, Any]:
        """What decides whether two runs give the same features: JSON-able, free of paths and devices.

        The settings that people ask about stand by themselves; ``settings`` is a digest of all of them.
        """
        return {**self._weights_identity, "backend": self.backend, "precision": self.network.types.names()}

    def detect(self, frames: Sequence[Frame]) -> list[FrameRegions]:
        """Finds the regions of each frame.

        Frames of one size run together; nothing is padded. A frame in which nothing is proposed, or which is too thin
        to leave a pixel at the network's resolution, gives no regions.

        Args:
            frames: [H, W, 3] uint8 in red-green-blue order, of any sizes.

        Returns:
            One entry per frame, in order, each with at most ``selection.regions`` regions, best first.

        Raises:
            VideoError: a frame is not a [H, W, 3] uint8 picture.
        """
        return self._run(frames, None)

    def regions_for_boxes(self, frames: Sequence[Frame], boxes: Sequence[NDArray[np.float32]]) -> list[FrameRegions]:
        """Describes given boxes instead of proposals: every box is kept, in its order, as it was given.

        Args:
            frames: as for :meth:`detect`. boxes: for each frame [k, 4] ``x1 y1 x2 y2`` in its pixels.
        """
        given = [torch.from_numpy(np.ascontiguousarray(b, np.float32).reshape(-1, 4)) for b in boxes]
        assert len(given) == len(frames), f"{len(frames)} frames, but boxes for {len(given)}"
        return self._run(frames, given)

    def _run(self, frames: Sequence[Frame], given: Sequence[Tensor] | None) -> list[FrameRegions]:
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, frame in enumerate(frames):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
                found = f"{frame.dtype} {list(frame.shape)}"
                raise VideoError(f"a frame is {found}, expected uint8 [H, W, 3]", stage="detect", reason="bad-frame")
            by_size[frame.shape].append(number)
        results: dict[int, FrameRegions] = {}
        for numbers in by_size.values():
            while numbers:
                batch = numbers[: self.max_batch]
                boxes = [given[number] for number in batch] if given is not None else None
                regions = self._try_batch([frames[number] for number in batch], boxes)
                if regions is not None:
                    results.update(zip(batch, regions, strict=True))
                    numbers = numbers[len(batch) :]
        return [results[number] for number in range(len(frames))]

    def _try_batch(self, frames: Sequence[Frame], given: Sequence[Tensor] | None) -> list[FrameRegions] | None:
        """Runs one batch; where memory runs out, halves the sizes for good and gives None: take a smaller batch.

        Frames that overflow in half precision are done again in float32, by themselves, so that what becomes of a frame
        does not depend on its neighbours.
        """
        try:
            regions, overflowed = self._run_batch(frames, given)
            if overflowed:
                self._overflows.note(len(frames), len(overflowed), self._overflows_on_anything)
                boxes = None if given is None else [given[number] for number in overflowed]
                again, _ = self._in_float32([frames[number] for number in overflowed], boxes)
                for number, found in zip(overflowed, again, strict=True):
                    regions[number] = found
            return regions
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (len(frames) == 1 and self.chunk <= SMALLEST_CHUNK):
                raise
        # Past the handler nothing holds on to the tensors of the failed try.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.max_batch = (len(frames) + 1) // 2
        self.chunk = max(self.chunk // 2, SMALLEST_CHUNK)
        log.warning(
            "out of memory: going on with %d frames and %d regions at a time (detector.batch=%d from the start saves "
            "the failed tries)",
            *(self.max_batch, self.chunk, self.max_batch),
        )
        return None

    def _in_float32(
        self, frames: Sequence[Frame], given: Sequence[Tensor] | None
    ) -> tuple[list[FrameRegions], list[int]]:
        """:meth:`_run_batch` with every stage in float32; the weights stay those of the half-precision network."""
        types, compiled = self.network.types, self.network.roi_heads.compiled_res5
        self.network.set_types(StageTypes())
        self.network.roi_heads.compiled_res5 = None  # it knows one number format
        try:
            return self._run_batch(frames, given)
        finally:
            self.network.set_types(types)
            self.network.roi_heads.compiled_res5 = compiled

    def _overflows_on_anything(self) -> bool:
        """Whether a picture without anything special overflows, so that every one would have to be done twice."""
        plain = np.random.default_rng(0).integers(96, 160, (96, 128, 3), dtype=np.uint8)
        return bool(self._run_batch([plain], None)[1])

    @torch.inference_mode()
    def _run_batch(
        self, frames: Sequence[Frame], given: Sequence[Tensor] | None
    ) -> tuple[list[FrameRegions], list[int]]:
        """Regions of frames of one size; ``given`` boxes take the place of proposals and of the selection.

        Returns:
            The regions of each frame, and the places of those that overflowed, whose regions mean nothing.
        """
        height, width, _ = frames[0].shape
        resize = plan_resize(height, width, self.config.input)
        if min(resize.new_height, resize.new_width) < Backbone.SMALLEST_SIDE:
            return [no_regions(self.feature_width) for _ in frames], []
        scale = torch.tensor((resize.scale_x, resize.scale_y) * 2, dtype=torch.float32)
        with exact_float32():
            images = torch.from_numpy(np.stack(frames))
            if self.config.input.resample != "pillow_uint8":  # Pillow works in main memory
                images = to_device(images, self.device)
            res4 = self.network.res4(preprocess(images, resize, self.config.input).to(self.device))
            if given is None:
                boxes = [found for found, _ in self.network.propose(res4, resize, self.anchors)]
                original = [found.cpu() / scale for found in boxes]
            else:
                original = list(given)
                boxes = [(found * scale).to(self.device) for found in original]
            return self._describe(res4, boxes, original, resize, every=given is not None)

    def _describe(
        self, res4: Tensor, boxes: Sequence[Tensor], original: Sequence[Tensor], resize: Resize, *, every: bool
    ) -> tuple[list[FrameRegions], list[int]]:
        """Runs the region head on ``boxes`` (resized pixels) and keeps what the selection keeps, or everything."""
        head, counts = self.network.roi_heads, [len(found) for found in boxes]
        features = head.features(res4, boxes, self.chunk)
        sums = None
        if self.network.types.reduced:
            sums = to_main_memory(torch.cat((sums_of(res4), sums_of(features))))
            features = features.nan_to_num(posinf=0.0, neginf=0.0)
        logits = head.class_logits(features)
        probabilities = torch.split(object_probabilities(logits, self.config), counts)
        if every:
            chosen = [keep_all(b, p.cpu()) for b, p in zip(original, probabilities, strict=True)]
        else:
            chosen = self._select(features, original, probabilities, resize)
        # Rows of the kept regions in the batch, so that the attribute head sees only them.
        starts = np.cumsum([0, *counts[:-1]]).tolist()
        rows = torch.cat([c.index + start for c, start in zip(chosen, starts, strict=True)]).to(self.device)
        features, logits = features[rows], logits[rows]
        if self.config.head.attributes and len(rows):
            scores, ids = head.attribute_probabilities(features, logits).max(dim=1)
        else:
            scores, ids = features.new_zeros(len(rows)), torch.full((len(rows),), -1)
        kept = [len(c.index) for c in chosen]
        columns = (torch.split(column.cpu(), kept) for column in (features, ids, scores))
        regions = [frame_regions(*parts) for parts in zip(chosen, *columns, strict=True)]
        return regions, overflowed(sums, counts) if sums is not None else []

    def _select(
        self, features: Tensor, original: Sequence[Tensor], probabilities: Sequence[Tensor], resize: Resize
    ) -> list[Selection]:
        rule, counts = self.config.selection, [len(found) for found in original]
        deltas: list[Tensor | None] = [None] * len(counts)
        suppressed: list[Tensor | None] = [None] * len(counts)
        if rule.boxes == "regressed":
            deltas = list(torch.split(self.network.roi_heads.box_deltas(features).cpu(), counts))
        elif self.device.type == "cuda":
            boxes = [found.to(self.device) for found in original]
            suppressed = list(suppressed_at_once(boxes, probabilities, rule.nms[0], self.config.boxes))
        if suppressed[0] is None:
            probabilities = [found.cpu() for found in probabilities]
        # The frame as the network saw it, taken back to original pixels: MILVLG clips there.
        height, width = resize.new_height / resize.scale_y, resize.new_width / resize.scale_x
        frames = zip(original, probabilities, deltas, suppressed, strict=True)
        return [select(b, p, d, height, width, self.config, s) for b, p, d, s in frames]
