"""``regionvlp bench rwa``: what region-word alignment costs; :mod:`regionvlp.pipelines.bench.rwa_costs` measures.

In: a device. Out: ``{"device", "rows", "ratios"}``.
"""

from __future__ import annotations

import click

from regionvlp.pipelines.output import console_for, json_option, write_json


@click.command("rwa")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option("--quick", is_flag=True, help="Sizes of a few seconds; the ratios then say little.")
@click.option("--full", is_flag=True, help="On a CPU also rank 1,000 videos by 1,000 captions: minutes.")
@json_option
def command(device: str, quick: bool, full: bool, json_path: str | None) -> None:
    """Time and memory of region-word alignment, forward and backward, against the public form written out.

    The first baseline expands contexts and takes cosine_similarity, caption by caption, with float64 masks, as the
    public code does; the second uses einsum instead. On a CPU they and the lean form run on one thread; ranking
    every video by every caption (250 of each, 1,000 with --full) uses every core.
    """
    from regionvlp.devices import pick_device
    from regionvlp.pipelines.bench.rwa_costs import RegionWordBench

    bench = RegionWordBench(pick_device(device), console_for(json_path))
    if quick:
        bench.run_quick()
    else:
        bench.run(full)
    write_json({"device": bench.name, "rows": bench.rows, "ratios": bench.ratios}, json_path)
