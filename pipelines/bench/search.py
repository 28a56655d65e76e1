"""``regionvlp bench search``: how long an answer takes in a large gallery, and what an index costs.

The vectors are clustered, as those of real clips are: exact search has to tell near neighbours apart, and an
approximate index has something to gain. The baseline of the ratio is the usual way, a product in float32.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, json_option, write_json

CLUSTERS, SPREAD = 1000, 0.6  # of the vectors; the length of the noise against that of a centre
QUERIES = 40
TOKENS = 8 * 30
TOP = 100


@click.command("search")
@click.option("--clips", default=1_000_000, show_default=True, type=click.IntRange(1000, 20_000_000))
@click.option("--width", default=256, show_default=True, type=click.IntRange(8, 4096), help="Of the vectors.")
@click.option(
    "--rerank-clips", default=2_000, show_default=True, type=click.IntRange(100, 200_000), help="With tokens."
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--ann/--no-ann", default=False, help="Also an approximate index (needs faiss-cpu).")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [for temporaries]")
@json_option
def command(
    clips: int, width: int, rerank_clips: int, threads: int, ann: bool, folder: Path | None, json_path: str | None
) -> None:
    """Time exact search over --clips clustered vectors in half precision, and re-ranking a hundred by their tokens."""
    import torch

    if folder is not None and not folder.is_dir():
        raise InputError(f"no folder at {folder}", "give --dir a folder that exists")
    console = console_for(json_path)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            bench = SearchBench(Path(scratch), clips, width)
            bench.exact()
            bench.opening()
            bench.rerank(rerank_clips)
            if ann:
                bench.approximate()
    finally:
        torch.set_num_threads(before)
    console.print(f"{clips:,} clips of {width} numbers in half precision, {threads} threads")
    for row in bench.rows:
        console.print(f"  {row['name']:36} {row['value']:>12,.2f} {row['unit']}")
    for name, ratio in bench.ratios.items():
        console.print(f"  {name:36} {ratio:>12,.2f} times")
    write_json({"device": "cpu", "rows": bench.rows, "ratios": bench.ratios}, json_path)


class SearchBench:
    """The measurements; each adds its rows."""

    def __init__(self, folder: Path, clips: int, width: int) -> None:
        self.folder, self.clips, self.width = folder, clips, width
        self.rows: list[dict[str, Any]] = []
        self.ratios: dict[str, float] = {}
        self._rng = np.random.default_rng(0)
        self._centres = self._rng.standard_normal((CLUSTERS, width)).astype(np.float32)
        path = folder / "pooled.npy"
        file = np.lib.format.open_memmap(path, "w+", np.float16, (clips, width))
        for start in range(0, clips, 50_000):
            file[start : start + 50_000] = self._drawn(min(50_000, clips - start))
        file.flush()
        self.vectors: NDArray[np.float16] = np.load(path, mmap_mode="r")
        self.queries = self._drawn(QUERIES).astype(np.float32)

    def _drawn(self, count: int) -> NDArray[np.float16]:
        noise = SPREAD * self._rng.standard_normal((count, self.width), np.float32)
        vectors = self._centres[self._rng.integers(0, CLUSTERS, count)] + noise
        drawn: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        return drawn

    def _row(self, name: str, value: float, unit: str) -> None:
        self.rows.append({"name": name, "value": value, "unit": unit})

    def exact(self) -> None:
        """The pooled stage, and whether its answers are those of float32."""
        import torch

        from regionvlp.search.rank import Gallery

        gallery = Gallery([self.vectors])
        found: list[NDArray[np.int64]] = []
        times = timed(lambda query: found.append(gallery.best(query, TOP).rows), self.queries)
        halves = torch.from_numpy(np.array(self.vectors))
        # What reading the vectors once costs on this machine at this moment: nothing exact can be below it.
        bare = timed(lambda query: torch.mv(halves, torch.from_numpy(query).half()), self.queries)
        rows = torch.from_numpy(np.array(self.vectors[:200_000], np.float32))
        plain = timed(lambda query: torch.topk(rows @ torch.from_numpy(query), TOP), self.queries[:10])
        scale = self.clips / len(rows)  # what memory holds of all is enough to know what all would take
        self._row("exact_p50", 1000 * statistics.median(times), "ms")
        self._row("exact_p95", 1000 * float(np.percentile(times, 95)), "ms")
        self._row("half_product_p50", 1000 * statistics.median(bare), "ms")
        self._row("float32_p50", 1000 * statistics.median(plain) * scale, "ms")
        self._row("vectors", self.vectors.nbytes / 1e6, "MB")
        self.ratios["exact_speed"] = statistics.median(plain) * scale / statistics.median(times)
        if self.clips <= 2_000_000:
            # The call that does not count asked the first query as well.
            pairs = zip(self.queries[:5], found[1:], strict=False)
            same = [slow_best(self.vectors, query, TOP).tolist() == rows.tolist() for query, rows in pairs]
            self._row("equal_to_float32", 100 * float(np.mean(same)), "%")

    def opening(self) -> None:
        """How long it takes until an index of that size can be asked."""
        from regionvlp.search.index import open_index

        made = bare_index(self.folder / "index", self.vectors)
        times = timed(lambda folder: len(open_index(folder)), [made] * 5)
        self._row("open", 1000 * statistics.median(times), "ms")

    def rerank(self, clips: int) -> None:
        """A hundred clips by the alignment of their stored tokens with ten words."""
        import torch

        from regionvlp.losses.region_word.alignment import region_word_similarity
        from regionvlp.losses.region_word.settings import RegionWordSettings
        from regionvlp.models.encoded import Encoded
        from regionvlp.regions import cast_features

        path = self.folder / "tokens.npy"
        file = np.lib.format.open_memmap(path, "w+", np.float16, (clips, TOKENS, self.width))
        for start in range(0, clips, 200):
            size = (min(200, clips - start), TOKENS, self.width)
            file[start : start + 200] = self._rng.standard_normal(size, np.float32)
        file.flush()
        tokens = np.load(path, mmap_mode="r")
        words = torch.randn(1, 10, self.width)
        text = Encoded(words[:, 0], words, torch.ones(1, 10, dtype=torch.bool))
        settings = RegionWordSettings()

        def once(rows: NDArray[np.int64]) -> None:
            regions = torch.from_numpy(cast_features(tokens[rows], np.float32))
            video = Encoded(regions[:, 0], regions, torch.ones(len(rows), TOKENS, dtype=torch.bool))
            with torch.inference_mode():
                region_word_similarity(video=video, text=text, settings=settings)

        chosen = [np.sort(self._rng.choice(clips, min(100, clips), replace=False)) for _ in range(20)]
        self._row("rerank_p50", 1000 * statistics.median(timed(once, chosen)), "ms")
        self._row("tokens_a_clip", 2 * TOKENS * self.width / 1e3, "kB")

    def approximate(self) -> None:
        """An inverted file with scalar quantisation, and how many of the exact answers it finds."""
        try:
            import faiss
        except ImportError:
            raise InputError("an approximate index needs faiss-cpu", "pip install 'regionvlp[faiss]'") from None
        lists = int(4 * self.clips**0.5)
        quantiser = faiss.IndexFlatIP(self.width)
        index = faiss.IndexIVFScalarQuantizer(
            quantiser, self.width, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        sample = np.sort(self._rng.choice(self.clips, min(self.clips, 40 * lists), replace=False))
        index.train(np.ascontiguousarray(self.vectors[sample], np.float32))
        for start in range(0, self.clips, 100_000):
            index.add(np.ascontiguousarray(self.vectors[start : start + 100_000], np.float32))
        index.nprobe = 32
        found: list[NDArray[np.int64]] = []
        times = timed(lambda query: found.append(index.search(query[None], 10)[1][0]), self.queries)
        truth = [slow_best(self.vectors, query, 10) for query in self.queries[:10]]
        recall = np.mean([len(set(f) & set(t)) / 10 for f, t in zip(found[1:], truth, strict=False)])
        exact = next(row["value"] for row in self.rows if row["name"] == "exact_p50")
        self._row("ann_p50", 1000 * statistics.median(times), "ms")
        self._row("ann_recall_at_10", 100 * float(recall), "%")
        self.ratios["ann_speed"] = exact / (1000 * statistics.median(times))


def timed(call: Callable[[Any], object], inputs: Any) -> list[float]:
    """Seconds of each call, after one that does not count."""
    call(inputs[0])
    times = []
    for given in inputs:
        started = time.perf_counter()
        call(given)
        times.append(time.perf_counter() - started)
    return times


def slow_best(vectors: NDArray[np.float16], query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The oracle: a product in float32, block by block, and a full sort."""
    scores = np.concatenate(
        [vectors[start : start + 50_000].astype(np.float32) @ query for start in range(0, len(vectors), 50_000)]
    )
    return np.lexsort((np.arange(len(scores)), -scores))[:count]


def bare_index(folder: Path, vectors: NDArray[np.float16]) -> Path:
    """An index of clips that have nothing but vectors, without anything to encode."""
    import pyarrow as pa

    from regionvlp.search import segment
    from regionvlp.search.folder import Contents, EncoderRecord, IndexManifest

    record = EncoderRecord("none", {}, "", vectors.shape[1], tokens=False)
    IndexManifest.create_or_check(folder, IndexManifest((record,), {}, {}))

    def pieces(start: int, stop: int) -> Any:
        for at in range(start, stop, 8192):
            rows = range(at, min(at + 8192, stop))
            names = [f"folder/{row:08d}.mp4" for row in rows]
            n = len(names)
            zeros, looks = np.zeros(n), np.zeros(n, np.uint64)
            clips = pa.Table.from_arrays(
                [pa.array(names), pa.array(names), pa.array([""] * n), zeros, zeros + 8, pa.array(names), looks],
                schema=segment.CLIPS_SCHEMA,
            )
            nothing = {"thumbnail": b"", **dict.fromkeys(segment.EVIDENCE_SCHEMA.names[:-1], ())}
            evidence = pa.Table.from_pylist([nothing] * n, segment.EVIDENCE_SCHEMA)
            yield segment.Rows(clips, evidence, {"pooled-0.npy": vectors[rows.start : rows.stop]})

    segments = dict(
        segment.write_segment(folder, number, pieces(start, min(start + 65_536, len(vectors))))
        for number, start in enumerate(range(0, len(vectors), 65_536))
    )
    Contents(segments=segments).write(folder)
    return folder
