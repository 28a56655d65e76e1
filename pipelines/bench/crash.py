"""``regionvlp bench crash``: extractions killed with SIGKILL at random moments, then resumed.

In: how many, and with which launchers. Out: ``{"device", "rows", "ratios"}`` and a table; exit code 1 where a single
folder differs from one that nobody disturbed.
"""

from __future__ import annotations

import platform
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.table import Table

from regionvlp.errors import InputError, nearest
from regionvlp.pipelines.bench.crashing import LAUNCHERS, PHASES, VICTIMS, Attack, Ring
from regionvlp.pipelines.bench.fork_server import ForkServer
from regionvlp.pipelines.bench.proc_table import require_proc
from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.progress import ProgressBar


@click.command("crash")
@click.option("--runs", default=200, show_default=True, type=click.IntRange(1), help="Extractions to kill and resume.")
@click.option("--seed", default=0, show_default=True, help="Decides launchers, victims and moments.")
@click.option(
    "--launchers",
    default=",".join(LAUNCHERS),
    show_default=True,
    metavar="NAMES",
    callback=lambda ctx, parameter, value: _launchers(value),
    help="Which take turns; one named twice has two.",
)
@click.option("--cold", default=0.1, show_default=True, type=click.FloatRange(0, 1), help="Share of true cold starts.")
@json_option
def command(runs: int, seed: int, launchers: list[str], cold: float, json_path: str | None) -> int:
    """Kill extractions with SIGKILL at random moments, resume them, and compare with one that nobody disturbed.

    Real commands over small clips with the toy detector and shards of two videos. Killed are all processes of a run,
    by turns only a main process or only a worker or decoder, up to three times in a row. Most are forks of a process
    that has done the imports and nothing else; a share starts from nothing.
    """
    require_proc()
    console = console_for(json_path)
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="bench-crash-"))
    attacks: list[Attack] = []
    try:
        with ForkServer() as server, ProgressBar("bench crash", "runs", "runs") as bar:
            bar.begin(runs)
            ring = Ring(folder, server)
            for number in range(runs):
                attack = ring.attack(launchers[number % len(launchers)], rng.random() < cold, rng)
                attacks.append(attack)
                for fault in attack.faults:
                    console.print(f"{attack.launcher}, {attack.form}, {attack.kills}: {fault}", markup=False)
                bar.advance(1, 1)
    finally:
        bad = [attack for attack in attacks if attack.faults]
        if not bad:
            shutil.rmtree(folder)
    for table in _tables(attacks):
        console.print(table)
    if bad:
        console.print(f"{len(bad)} of {runs} runs ended with other content; their folders are in {folder}")
    else:
        console.print(f"all {runs} runs ended with the content of one that nobody disturbed")
    write_json({"device": f"{platform.machine()} CPU", "rows": rows_of(attacks), "ratios": {}}, json_path)
    return 1 if bad else 0


def rows_of(attacks: Sequence[Attack]) -> list[dict[str, object]]:
    """Counts over all runs, and by launcher, as the rows of a bench."""
    rows: list[dict[str, object]] = []
    for launcher in ("", *sorted({attack.launcher for attack in attacks})):
        mine = [attack for attack in attacks if launcher in ("", attack.launcher)]
        prefix = f"{launcher}_" if launcher else ""
        phases, victims = _counts(mine)
        counts = {
            "runs": len(mine),
            "cold": sum(attack.cold for attack in mine),
            "kills": sum(len(attack.kills) for attack in mine),
            **{f"killed_in_{phase}": phases[phase] for phase in PHASES},
            **{f"killed_{victim}": victims[victim] for victim in VICTIMS},
            "unequal": sum(bool(attack.faults) for attack in mine),
        }
        rows += [{"name": prefix + name, "value": float(count), "unit": "count"} for name, count in counts.items()]
    return rows


def _counts(attacks: Sequence[Attack]) -> tuple[Counter[str], Counter[str]]:
    kills = [kill for attack in attacks for kill in attack.kills]
    return Counter(kill.phase for kill in kills), Counter(kill.victim for kill in kills)


def _tables(attacks: Sequence[Attack]) -> Iterator[Table]:
    """How the runs ended, and where the kills fell, by launcher."""
    ends = Table(title="runs", title_justify="left", show_edge=False, pad_edge=False)
    falls = Table(title="kills", title_justify="left", show_edge=False, pad_edge=False)
    for table, names in (ends, ("runs", "cold", "kills", "equal", "unequal")), (falls, (*PHASES, *VICTIMS)):
        table.add_column("launcher")
        for name in names:
            table.add_column(name, justify="right")
    for launcher in sorted({attack.launcher for attack in attacks}):
        mine = [attack for attack in attacks if attack.launcher == launcher]
        phases, victims = _counts(mine)
        bad, cold = sum(bool(attack.faults) for attack in mine), sum(attack.cold for attack in mine)
        ends.add_row(launcher, *map(str, (len(mine), cold, phases.total(), len(mine) - bad, bad)))
        numbers = (*(phases[phase] for phase in PHASES), *(victims[victim] for victim in VICTIMS))
        falls.add_row(launcher, *map(str, numbers))
    yield from (ends, falls)


def _launchers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in LAUNCHERS:
            raise InputError(f"no launcher '{name}'", nearest(name, LAUNCHERS) or f"there are: {', '.join(LAUNCHERS)}")
    if not names:
        raise InputError("--launchers names none", f"there are: {', '.join(LAUNCHERS)}")
    return names
