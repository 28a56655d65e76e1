"""``regionvlp ablate``: the same run in several variants, each with several seeds, in one table.

Leaves ``runs/VARIANT/seed-N`` (ordinary runs), ``table.md`` and ``ablation.json``. Killed and started again it goes on:
runs that are finished and measured are kept, the one that was running goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from regionvlp.config import load_config, merge, parse_assignments, read_yaml
from regionvlp.configs import find_config
from regionvlp.errors import ConfigError, InputError, NothingDoneError
from regionvlp.pipelines import ablation_table
from regionvlp.pipelines.ablation_runs import Job, finished, run_jobs
from regionvlp.pipelines.ablation_variants import Variant, build_variants
from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.run_config import RunConfig
from regionvlp.shards.files import replacing

TABLE, RECORD = "table.md", "ablation.json"


@click.command("ablate")
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML file of a run.")
@click.option("--over", "overs", multiple=True, metavar="AXIS=A,B",
              help="What to vary: loss=global,filip,rwa (see above); frames=1,4 or regions=8,30; "
                   "or any key, e.g. optim.lr=1e-4,3e-4. Several make a grid.")  # fmt: skip
@click.option("--variants", "files", multiple=True, type=click.Path(path_type=Path),
              help="A YAML file of variants: a mapping of names to settings, as in recipes.yaml.")  # fmt: skip
@click.option("--seeds", default="3", show_default=True, metavar="N|A,B", help="How many, or which ones.")
@click.option("--set", "assignments", multiple=True, metavar="K=V", help="Set one key for all, e.g. train.epochs=2.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64),
              help="Runs side by side, as processes of one thread each.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder.")
@json_option
def command(
    config_path: Path,
    overs: tuple[str, ...],
    files: tuple[Path, ...],
    seeds: str,
    assignments: tuple[str, ...],
    jobs: int,
    out: Path,
    json_path: str | None,
) -> int:
    """Train variants of a run with several seeds, measure them, and say which differences exceed the seeds' spread.

    The losses are named as in DemoVLP's tables 4 to 6, whose figures stand beside. Each is a layer of settings over
    the configuration: global (contrast of whole clips alone), filip, taco (its token term, all words alike), taco_idf
    (over nouns and verbs), rwa (the paper's region-word alignment), rwa_no_refine, rwa_select_token (captions of nouns
    and verbs alone), rwa_valid (the public code's on valid tokens, contrasted both ways), rwa_public (exactly the
    public code's, captions padded to 100). Those with nouns and verbs need a tagger.
    """
    variants = build_variants(overs, [find_config(path) for path in files])
    base = merge(read_yaml(find_config(config_path)), parse_assignments(assignments))
    planned = _plan(base, variants, _seeds(seeds), out.absolute(), str(config_path))
    console = console_for(json_path)
    results: dict[str, dict[int, Mapping[str, Any]]] = {variant.name: {} for variant in variants}
    failures: list[dict[str, Any]] = []
    waiting = []
    for job in planned:
        known = finished(job)
        if known is None:
            waiting.append(job)
        else:
            results[job.variant][job.seed] = known
    kept = len(planned) - len(waiting)
    console.print(
        f"{len(variants)} variants x {len(planned) // len(variants)} seeds: {len(waiting)} runs"
        + (f", {kept} kept from before" if kept else ""),
        markup=False,
    )
    for done, (job, outcome) in enumerate(run_jobs(waiting, jobs), start=1):
        said = outcome if isinstance(outcome, str) else f"R@1 {outcome['t2v']['R1']:.1f} %, {outcome['seconds']:.0f} s"
        console.print(f"{done}/{len(waiting)}  {job.variant}, seed {job.seed}: {said}", markup=False)
        if isinstance(outcome, str):
            failures.append({"variant": job.variant, "seed": job.seed, "message": outcome})
        else:
            results[job.variant][job.seed] = outcome
    measured = {name: {seed: runs[seed] for seed in sorted(runs)} for name, runs in results.items() if runs}
    if not measured:
        raise NothingDoneError(f"every run failed: {failures[0]['message']}", f"see the folders in {out}")
    summary = ablation_table.summarise(measured)
    record = {
        "config": str(config_path),
        "set": list(assignments),
        "variants": {variant.name: variant.settings for variant in variants},
        "runs": {name: {str(seed): run for seed, run in runs.items()} for name, runs in measured.items()},
        "failures": failures,
        **ablation_table.as_json(summary),
    }
    write_json(record, str(out / RECORD))
    with replacing(out / TABLE) as temporary:
        temporary.write_text(ablation_table.markdown(summary, _conditions(config_path, measured)), encoding="utf-8")
    console.print(ablation_table.terminal_table(summary, f"{config_path.stem}, means and spreads over seeds"))
    for line in ablation_table.verdicts(summary):
        console.print(f"* {line}", markup=False)
    for failure in failures:
        console.print(f"failed: {failure['variant']}, seed {failure['seed']}: {failure['message']}", markup=False)
    console.print(f"wrote {out / TABLE} and {out / RECORD}", markup=False)
    write_json(record, json_path)
    return 1 if failures else 0


def _plan(
    base: Mapping[str, Any], variants: Sequence[Variant], seeds: Sequence[int], out: Path, name: str
) -> list[Job]:
    """Every run with its configuration, validated before the first one starts; seeds vary slowest.

    In that order an ablation that was stopped early still compares its variants on the same seeds.
    """
    jobs = []
    for seed in seeds:
        for variant in variants:
            layers = (base, variant.settings, {"train": {"seed": seed}})
            config = load_config(RunConfig, *layers, source=f"{name}, variant '{variant.name}'")
            if not config.data.sources:
                raise ConfigError(
                    f"{name} names no captions and shards to train on",
                    "--set data.sources='[{captions: FILE, shards: FOLDER}]'",
                )
            if config.eval.source is None:
                raise ConfigError(
                    f"{name} names nothing to measure on", "--set eval.source='{captions: FILE, shards: FOLDER}'"
                )
            jobs.append(Job(variant.name, seed, config, out / "runs" / variant.folder / f"seed-{seed}"))
    return jobs


def _seeds(text: str) -> list[int]:
    """``5`` is five seeds from 0; ``0,3`` are those two, and ``3,`` is that one."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    seeds = numbers if "," in text or not numbers else list(range(numbers[0]))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"cannot read '--seeds {text}'", "write --seeds 5 for 0 to 4, or --seeds 0,1,2")
    return seeds


def _conditions(config_path: Path, measured: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[str]:
    runs = [run for group in measured.values() for run in group.values()]
    steps, gallery = ({run[key] for run in runs} for key in ("steps", "gallery"))
    return [
        f"# Ablation of {config_path.stem}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {runs[0]['device']}. "
        f"{_range(steps)} steps, {_range(gallery)} held-out videos, chance R@1 {runs[0]['chance']['R1']:.1f} %.",
    ]


def _range(values: set[int]) -> str:
    return f"{min(values):,}" + (f" to {max(values):,}" if len(values) > 1 else "")
