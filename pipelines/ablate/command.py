"""``regionvlp ablate``: the same run in several variants, each with several seeds, in one table.

Leaves ``runs/VARIANT/seed-N`` (ordinary runs), ``table.md`` and ``ablation.json``. Killed and started again it goes on:
runs that are finished and measured are kept, the one that was running goes on from its checkpoint. What a run would
stumble over is looked for before the first one starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from regionvlp.config import parse_assignments, read_yaml
from regionvlp.configs import find_config
from regionvlp.errors import ConfigError, InputError, NothingDoneError, RegionVLPError
from regionvlp.pipelines.ablate import table as ablation_table
from regionvlp.pipelines.ablate.variants import Variant, build_variants
from regionvlp.pipelines.output import console_for, json_option, many, write_json

if TYPE_CHECKING:
    from regionvlp.pipelines.ablate.runs import Job

TABLE, RECORD, RUNS = "table.md", "ablation.json", "runs"
MOST_SEEDS = 1000


@click.command("ablate")
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML file of a run.")
@click.option("--over", "overs", multiple=True, metavar="AXIS=A,B",
              help="What to vary: loss=global,filip,rwa (see above); frames=1,4 or regions=8,30; "
                   "or any key, e.g. optim.lr=1e-4,3e-4. Several make a grid.")  # fmt: skip
@click.option("--variants", "files", multiple=True, type=click.Path(path_type=Path),
              help="A YAML file of variants: a mapping of names to settings, as in recipes.yaml.")  # fmt: skip
@click.option("--seeds", default="3", show_default=True, metavar="N|A,B", help="How many, or which ones.")
@click.option("--set", "assignments", multiple=True, metavar="K=V",
              help="Set one key for all, e.g. train.epochs=2: on top of the configuration and of the files of "
                   "--variants. A key that --over sets otherwise is refused.")  # fmt: skip
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

    loss.temperature is that of the global contrast, filip and taco; the alignments have loss.region_word.temperature.

    The same command goes on where it stopped; only what no figure depends on may change (device, workers).
    """
    from regionvlp.pipelines.ablate.runs import check_run, finished, run_jobs  # with all of training behind it
    from regionvlp.store.files import replacing
    from regionvlp.training.preparing import check_inputs

    assigned = parse_assignments(assignments)
    variants = build_variants(overs, [find_config(path) for path in files], assigned)
    base = read_yaml(find_config(config_path))
    planned = _plan(base, variants, assigned, _seeds(seeds), out.absolute(), str(config_path))
    _check_out(out)
    for job in planned:
        check_run(job)
    results: dict[str, dict[int, Mapping[str, Any]]] = {variant.name: {} for variant in variants}
    waiting = []
    for job in planned:
        known = finished(job)
        if known is None:
            waiting.append(job)
        else:
            results[job.variant][job.seed] = known
    check_inputs({job.variant: job.config for job in waiting}.values())
    console = console_for(json_path)
    kept = len(planned) - len(waiting)
    console.print(
        f"{many(len(variants), 'variant')} x {many(len(planned) // len(variants), 'seed')}: "
        f"{many(len(waiting), 'run')}" + (f", {kept} kept from before" if kept else ""),
        markup=False,
    )
    failed: list[tuple[Job, RegionVLPError]] = []
    for done, (job, outcome) in enumerate(run_jobs(waiting, jobs), start=1):
        if isinstance(outcome, RegionVLPError):
            again = str(outcome) in {str(error) for _, error in failed}
            said = "failed, of the same" if again else f"failed: {outcome}"
            failed.append((job, outcome))
        else:
            results[job.variant][job.seed] = outcome
            said = f"R@1 {outcome['t2v']['R1']:.1f} %, {outcome['seconds']:.0f} s"
        console.print(f"{done}/{len(waiting)}  {job.variant}, seed {job.seed}: {said}", markup=False)
    measured = {name: {seed: runs[seed] for seed in sorted(runs)} for name, runs in results.items() if runs}
    if not measured:
        raise _nothing_done([error for _, error in failed], out)
    summary = ablation_table.summarise(measured)
    record = {
        "config": str(config_path),
        "set": list(assignments),
        "variants": {variant.name: variant.settings for variant in variants},
        "runs": {name: {str(seed): run for seed, run in runs.items()} for name, runs in measured.items()},
        "failures": [{"variant": job.variant, "seed": job.seed, "message": str(error)} for job, error in failed],
        **ablation_table.as_json(summary),
    }
    write_json(record, str(out / RECORD))
    with replacing(out / TABLE) as temporary:
        temporary.write_text(ablation_table.markdown(summary, _conditions(config_path, measured)), encoding="utf-8")
    _say(console, summary, config_path.stem)
    if failed:
        console.print(f"{many(len(failed), 'run')} failed, as said above: the table lacks them", markup=False)
    console.print(f"wrote {out / TABLE} and {out / RECORD}", markup=False)
    write_json(record, json_path)
    return 1 if failed else 0


def _say(console: Console, summary: Mapping[str, Mapping[str, ablation_table.Figure]], name: str) -> None:
    """The table, and what it says."""
    console.print(ablation_table.terminal_table(summary, f"{name}, means and spreads over seeds", console.width))
    for line in ablation_table.verdicts(summary):
        console.print(f"* {line}", markup=False)
    if any(pair.spread is not None for pair in ablation_table.differences(summary)):
        console.print(ablation_table.SHORT_RULE, markup=False)


def _plan(
    base: Mapping[str, Any],
    variants: Sequence[Variant],
    assigned: Mapping[str, Any],
    seeds: Sequence[int],
    out: Path,
    name: str,
) -> list[Job]:
    """Every run with its configuration, validated before the first one starts; seeds vary slowest.

    In that order an ablation that was stopped early still compares its variants on the same seeds.
    """
    from regionvlp.pipelines.ablate.runs import Job
    from regionvlp.training.config import run_config

    jobs = []
    for seed in seeds:
        for variant in variants:
            layers = (base, variant.settings, assigned, {"train": {"seed": seed}})
            config = run_config(*layers, source=f"{name}, variant '{variant.name}'")
            if not config.data.sources:
                raise ConfigError(
                    f"{name} names no captions and shards to train on",
                    "--set data.sources='[{captions: FILE, shards: FOLDER}]'",
                )
            if config.evaluated is None:
                raise ConfigError(
                    f"{name} names nothing to measure on", "--set eval.source='{captions: FILE, shards: FOLDER}'"
                )
            jobs.append(Job(variant.name, seed, config, out / RUNS / variant.folder / f"seed-{seed}"))
    return jobs


def _seeds(text: str) -> list[int]:
    """``5`` is five seeds from 0; ``0,3`` are those two, and ``3,`` is that one."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    seeds = numbers if "," in text or not numbers else list(range(min(numbers[0], MOST_SEEDS + 1)))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"cannot read '--seeds {text}'", "write --seeds 5 for 0 to 4, or --seeds 0,1,2")
    if max(seeds) >= 2**63:
        raise InputError(f"--seeds {text} names a seed that torch cannot take", "use seeds below 2^63")
    if len(seeds) > MOST_SEEDS:
        raise InputError(f"--seeds {text} asks for more than {MOST_SEEDS:,} seeds", "name them: --seeds 0,1,2")
    return seeds


def _check_out(out: Path) -> None:
    """Refuses a folder of something else; an ablation has its runs there, or its record."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder", "choose another --out")
    others = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    if others and not (out / RUNS).is_dir() and not (out / RECORD).is_file():
        raise InputError(f"{out} holds {others[0]} and no ablation", "choose another --out")


def _nothing_done(errors: Sequence[RegionVLPError], out: Path) -> RegionVLPError:
    """What to say where no run came to its end: what all of them say, if they agree."""
    if len({(type(error), str(error)) for error in errors}) == 1:
        return errors[0]
    return NothingDoneError(f"every run failed: {errors[0].message}", f"see the folders in {out}")


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
