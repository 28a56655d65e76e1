"""``regionvlp doctor``: one screen that says what this machine can do, and the command that mends what is missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
from rich.markup import escape
from rich.table import Table

from regionvlp import __version__
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json

Mark = Literal["ok", "optional", "missing"]
STYLES: dict[Mark, str] = {"ok": "green", "optional": "yellow", "missing": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the screen: what was looked at, how it stands, and how to mend it (empty where it is fine)."""

    name: str
    mark: Mark
    found: str
    mend: str = ""


def examine(folder: Path) -> list[Finding]:
    """Looks at this machine; ``folder`` is where the free disk is measured."""
    return [*_system(folder), *_torch(), *_readers(), *_detectors(), *_extras()]


def _system(folder: Path) -> list[Finding]:
    from regionvlp.video.pool import usable_cpus

    free = shutil.disk_usage(folder).free
    # One 8-frame video is about 1 MB of float16 features.
    machine = f"{platform.python_version()} on {platform.machine()}, {usable_cpus()} cores"
    room = f"{human_bytes(free)} free, room for about {int(free / 1e6):,} videos of 8 frames"
    return [
        Finding("regionvlp", "ok", f"{__version__} in {Path(__file__).parents[1]}"),
        Finding("python", "ok", machine),
        Finding(
            "disk", "ok" if free > 5e9 else "optional", room,
            "" if free > 5e9 else "free some space, or extract to another disk with --out",
        ),
    ]  # fmt: skip


def _torch() -> list[Finding]:
    try:
        import torch
        import torchvision
    except Exception as error:  # a broken install fails with whatever its libraries raise
        return [Finding("torch", "missing", f"cannot be imported: {error}", "pip install torch torchvision")]
    findings = [Finding("torch", "ok", f"{torch.__version__}, torchvision {torchvision.__version__}")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            findings.append(Finding(f"cuda:{index}", "ok", f"{gpu.name}, {human_bytes(gpu.total_memory)}"))
    else:
        findings.append(
            Finding(
                "gpu", "optional", "none: the detector runs on the CPU (full size: several seconds a frame)",
                "with an NVIDIA GPU: install its driver, then see that 'nvidia-smi' lists it",
            )
        )  # fmt: skip
    return findings


def _readers() -> list[Finding]:
    from regionvlp.video import available_readers

    findings = []
    for name, found in available_readers().items():
        _, missing, mend = found.partition("missing: ")
        if not missing:
            findings.append(Finding(f"reader {name}", "ok", found))
        elif name == "pyav":
            findings.append(Finding(f"reader {name}", "missing", "not installed; it is the default", mend))
        else:
            findings.append(Finding(f"reader {name}", "optional", "not installed; pyav is the default", mend))
    return findings


def _detectors() -> list[Finding]:
    from regionvlp.extract.detector import weights_status

    return [
        Finding(f"detector {row['name']}", "ok", f"{row['what']}: {row['where']}")
        if row["usable"]
        else Finding(f"detector {row['name']}", "optional", f"{row['what']}: not found", row["hint"])
        for row in weights_status()
    ]


def _extras() -> list[Finding]:
    findings = []
    for module, package, purpose, mend in (
        ("ray", "ray", "extraction on several machines", "pip install 'regionvlp[ray]'"),
        ("faiss", "faiss-cpu", "very large search galleries", "pip install 'regionvlp[faiss]'"),
    ):
        if importlib.util.find_spec(module):
            findings.append(Finding(package, "ok", "installed"))
        else:
            findings.append(Finding(package, "optional", f"not installed; for {purpose}", mend))
    return findings


@click.command("doctor")
@json_option
def command(json_path: str | None) -> int:
    """Say what this machine can do, and how to mend what is missing. Exit code 1 if something needed is missing."""
    findings = examine(Path.cwd())
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, f"[{STYLES[finding.mark]}]{finding.mark}[/]", escape(finding.found))
        if finding.mend:
            table.add_row("", "", f"[dim]-> {escape(finding.mend)}[/]")
    console_for(json_path).print(table)
    missing = [finding.name for finding in findings if finding.mark == "missing"]
    write_json({"missing": missing, "findings": [asdict(finding) for finding in findings]}, json_path)
    return 1 if missing else 0
