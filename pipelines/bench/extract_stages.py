"""How fast the detector is, stage by stage, and against what.

In: a size. Out: rows and ratios. Weights are random, since the work does not depend on them.
"""

from __future__ import annotations

import importlib.util
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from regionvlp.devices import describe_device, pick_device
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.detector import RegionDetector
from regionvlp.extract.detector.head import object_probabilities
from regionvlp.extract.detector.network import RegionNetwork
from regionvlp.extract.detector.precision import exact_float32
from regionvlp.extract.detector.preprocess import plan_resize, preprocess
from regionvlp.extract.detector.registry import DetectorFiles, find_detector
from regionvlp.extract.detector.rpn import propose
from regionvlp.extract.detector.selection import select
from regionvlp.extract.detector.selection_batched import suppressed_at_once
from regionvlp.extract.detector.weights import Weights, load_weights
from regionvlp.pipelines.bench.extract_baseline import ImageByImage, scores_class_by_class
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards import Manifest, ShardWriter
from regionvlp.video import read_frames

T = TypeVar("T")
ROUNDS = 2


def run_bench(
    frames: int, height: int, width: int, *, proposals: int, precision: str, device: str, quick: bool
) -> ExtractBench:
    """The whole bench on a clip of one size; ``quick`` takes the bundled toy instead of the full-size network."""
    overrides = {"rpn": {"proposals": proposals}}
    files = find_detector("toy") if quick else DetectorFiles("bench", None, family="caffe", random_seed=1)
    bench = ExtractBench(load_weights(files, {} if quick else overrides), device, precision)
    with tempfile.TemporaryDirectory() as folder, exact_float32(), torch.inference_mode():
        bench.run(Path(folder), frames, height, width)
    return bench


class ExtractBench:
    """One run: fills ``rows`` and ``ratios``."""

    def __init__(self, weights: Weights, device: str, precision: str) -> None:
        self.weights, self.device = weights, pick_device(device)
        self.detector = RegionDetector(weights, device=device, precision=precision)
        self.baseline = ImageByImage(weights, self.device)
        self.rows: list[dict[str, Any]] = []
        self.ratios: dict[str, float] = {}

    def run(self, folder: Path, count: int, height: int, width: int) -> None:
        video = folder / "clip.mp4"
        _write_clip(video, count, height, width)
        decode, decoded = self.clock(lambda: read_frames(video, count))
        frames: list[NDArray[np.uint8]] = list(decoded.frames)
        if self.device.type == "cuda":  # kernels are chosen and memory is taken at first use
            self.detector.detect(frames)
            self.baseline.regions(self.on_device(frames[0]))
        self.row("decode", count / decode, "frames/s")
        self.stages(frames)
        self.memory()
        pixels = self.on_device(frames[0])
        detect = slow = float("inf")
        for _ in range(ROUNDS):  # in turns, the best of each: what else the machine does falls on both
            seconds, found = self.clock(lambda: self.detector.detect(frames))
            detect = min(detect, seconds)
            seconds, (boxes, probabilities) = self.clock(lambda: self.baseline.regions(pixels))
            slow = min(slow, seconds)
        write, _ = self.clock(lambda: self.write(folder / "shards", found, height, width))
        ours = (decode + detect + write) / count
        self.row("end_to_end", 1 / ours, "frames/s")
        self.row("write", count / write, "frames/s")
        self.cost(1 / ours, height, width)

        rule, convention = self.detector.config.selection, self.detector.config.boxes
        box, probability = boxes.cpu(), probabilities.cpu()
        loop, _ = self.clock(lambda: scores_class_by_class(box, probability, rule.nms[0], convention))
        theirs = (decode + write) / count + slow + loop
        self.row("baseline", 1 / theirs, "frames/s")
        self.row("baseline_selection", 1 / loop, "frames/s")
        self.ratios["extract_speed"] = theirs / ours
        if importlib.util.find_spec("detectron2"):
            other = RegionDetector(self.weights, device=str(self.device), backend="detectron2", max_batch=1)
            seconds, _ = self.clock(lambda: other.detect(frames[:1]))
            theirs = (decode + write) / count + seconds
            self.row("detectron2", 1 / theirs, "frames/s")
            self.ratios["extract_speed_detectron2"] = theirs / ours
        # Both of the very same boxes and probabilities.
        walk, _ = self.clock(lambda: self.choose([box], [probability], height, width))
        self.ratios["selection_speed"] = loop / walk

    def stages(self, frames: list[NDArray[np.uint8]]) -> None:
        """The parts of ``detect``, one after the other over all frames."""
        detector, config = self.detector, self.detector.config
        height, width, _ = frames[0].shape
        resize = plan_resize(height, width, config.input)
        network, count = detector.network, len(frames)
        pixels = self.on_device(np.stack(frames))
        seconds, images = self.clock(lambda: preprocess(pixels, resize, config.input))
        self.row("resize", count / seconds, "frames/s")
        seconds, res4 = self.clock(lambda: network.res4(images))
        self.row("backbone", count / seconds, "frames/s")
        seconds, proposed = self.clock(lambda: propose(*network.rpn(res4), detector.anchors, resize, config))
        self.row("proposals", count / seconds, "frames/s")
        boxes = [found for found, _ in proposed]
        seconds, features = self.clock(lambda: network.roi_heads.features(res4, boxes, detector.chunk))
        self.row("res5", count / seconds, "frames/s")
        probabilities = object_probabilities(network.roi_heads.class_logits(features), config)
        split = list(torch.split(probabilities, [len(found) for found in boxes]))
        original = [found / resize.scale_x for found in boxes]
        seconds, _ = self.clock(lambda: self.choose(original, split, height, width))
        self.row("selection", count / seconds, "frames/s")
        self.row("regions", sum(map(len, boxes)) / count, "boxes/frame")

    def choose(self, boxes: list[Tensor], probabilities: list[Tensor], height: int, width: int) -> None:
        """The selection as the detector does it on this device."""
        config = self.detector.config
        if self.device.type != "cuda":
            for box, probability in zip(boxes, probabilities, strict=True):
                select(box, probability, None, height, width, config)
            return
        boxes, probabilities = ([part.to(self.device) for part in parts] for parts in (boxes, probabilities))
        known = suppressed_at_once(boxes, probabilities, config.selection.nms[0], config.boxes)
        for box, probability, scores in zip(boxes, probabilities, known, strict=True):
            select(box.cpu(), probability, None, height, width, config, scores)

    def write(self, folder: Path, found: list[FrameRegions], height: int, width: int) -> None:
        """One finished shard of one video."""
        config, count = self.detector.config, len(found)
        regions = VideoRegions.from_frames(
            "clip.mp4",
            found,
            frame_index=np.arange(count),
            frame_time=np.arange(count, dtype=np.float64),
            image_size=[(height, width)] * count,
            slots=config.selection.regions,
        )
        wanted = Manifest(
            format="hdf5",
            dtype="float16",
            frames=count,
            regions=config.selection.regions,
            feature_width=config.feature_width,
            shard_size=1,
            detector=self.detector.identity(),
            video={},
        )
        manifest = Manifest.create_or_check(folder, wanted)
        with ShardWriter(folder, 0, manifest) as writer:
            writer.add(regions)
            writer.finish(failures=[], partial=[], timings={})

    def cost(self, rate: float, height: int, width: int) -> None:
        """FLOPs of a frame, and the share of the peak of res5's number format that they make at ``rate`` frames/s."""
        flops = flops_per_frame(self.detector.config, height, width)
        dtype = self.detector.network.types.res5
        size = 8192 if self.device.type == "cuda" else 2048
        a = torch.randn(size, size, device=self.device).to(dtype)
        a @ a
        peak = 2 * size**3 / min(self.clock(lambda: a @ a)[0] for _ in range(20))
        self.row("flops", flops / 1e9, "GFLOP/frame")
        self.row("peak", peak / 1e9, "GFLOP/s")
        self.row("share_of_peak", 100 * flops * rate / peak, "%")

    def memory(self) -> None:
        if self.device.type == "cuda":
            self.row("peak_memory", torch.cuda.max_memory_allocated(self.device) / 1e9, "GB")
        else:
            self.row("peak_memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "GB")

    def on_device(self, frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(frames).to(self.device)

    def clock(self, work: Callable[[], T]) -> tuple[float, T]:
        """Wall seconds of ``work`` and what it returned; the device is waited for."""
        self.wait()
        started = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - started, result

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def row(self, name: str, value: float, unit: str) -> None:
        self.rows.append({"name": name, "value": float(value), "unit": unit})

    def device_name(self) -> str:
        return describe_device(self.device)


def flops_per_frame(config: DetectorConfig, height: int, width: int) -> int:
    """Floating-point operations (two per multiply-add) of one frame with all its proposals, attributes left out."""
    resize = plan_resize(height, width, config.input)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = RegionNetwork(config)
        res4 = network.res4(torch.empty(1, 3, resize.new_height, resize.new_width))
        network.rpn(res4)
        once = counter.get_total_flops()
        side = config.head.pool_size
        maps = network.roi_heads.res5(torch.empty(1, config.feature_width // 2, side, side))
        network.roi_heads.class_logits(maps.mean(dim=(2, 3)))
        region = counter.get_total_flops() - once
    return int(once + config.rpn.proposals * region)


def _write_clip(path: Path, count: int, height: int, width: int) -> None:
    """A clip of drifting coloured patches."""
    import av

    patches = np.random.default_rng(0).integers(0, 256, (height // 16 + 2, width // 16 + 2 + count, 3), dtype=np.uint8)
    picture = patches.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(count):
            cut = np.ascontiguousarray(picture[:height, 16 * number : 16 * number + width])
            for packet in stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
