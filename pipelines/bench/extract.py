"""``regionvlp bench extract``: the detector's speed; :mod:`regionvlp.pipelines.bench.extract_stages` measures.

In: a size. Out: ``{"device", "rows", "ratios"}``.
"""

from __future__ import annotations

import click

from regionvlp.pipelines.output import console_for, json_option, write_json


@click.command("extract")
@click.option("--frames", default=2, show_default=True, type=click.IntRange(1), help="Frames that run together.")
@click.option("--size", default="600x800", show_default=True, metavar="HxW", help="Of a frame, in pixels.")
@click.option("--proposals", default=300, show_default=True, type=click.IntRange(1), help="Per frame.")
@click.option("--precision", default="auto", show_default=True, help="auto, float32, fp16, bf16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option("--quick", is_flag=True, help="The bundled toy instead of the full-size network.")
@json_option
def command(
    frames: int, size: str, proposals: int, precision: str, device: str, quick: bool, json_path: str | None
) -> None:
    """Time the detector stage by stage and against the same network run image by image in float32.

    The baseline has the default memory layout, norms that are not folded, and one NMS call per object class. It runs
    one frame; decoding and writing count for both. Where detectron2 is installed, the same network through its modules
    is a second baseline.
    """
    from regionvlp.pipelines.bench.extract_stages import run_bench

    height, width = _parse_size(size)
    bench = run_bench(frames, height, width, proposals=proposals, precision=precision, device=device, quick=quick)
    result = {"device": bench.device_name(), "rows": bench.rows, "ratios": bench.ratios}
    console = console_for(json_path)
    console.print(f"{result['device']}, {precision}: {bench.detector.identity()['precision']}")
    for row in bench.rows:
        console.print(f"  {row['name']:28} {row['value']:>12,.4g} {row['unit']}")
    for name, ratio in bench.ratios.items():
        console.print(f"  {name:28} {ratio:>12,.2f} times")
    write_json(result, json_path)


def _parse_size(size: str) -> tuple[int, int]:
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) >= 16 and int(width) >= 16):
        raise click.UsageError(f"--size {size} is not like 600x800")
    return int(height) // 2 * 2, int(width) // 2 * 2  # H.264 halves the colour planes
