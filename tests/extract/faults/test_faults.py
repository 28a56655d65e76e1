"""An extraction survives the failure of any operation on its output folder, and death at any of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faults.shim import MODES, plain_name

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the shim asks /proc for open files")
FORMATS = ("hdf5", "parquet")
MEND = ("--mend", "d.mp4", "b.mp4")  # d failed, is as b is now, and is tried again
# What the kernel calls the operations of the shim; reading and closing are left out.
CALLS = {
    "open": "open openat creat",
    "write": "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range fallocate",
    "truncate": "truncate ftruncate",
    "fsync": "fsync fdatasync sync_file_range",
    "rename": "rename renameat renameat2",
    "link": "link linkat symlink symlinkat",
    "unlink": "unlink unlinkat",
    "rmdir": "rmdir",
    "mkdir": "mkdir mkdirat",
    "utime": "utimensat utimes futimesat",
}


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """Three pictures and a clip among three files that are no videos: one shard of four has no rows at all."""
    folder = tmp_path / "videos"
    make_clip(folder / "b.mp4")
    for seed, name in enumerate(["a.png", "c.png", "g.png"]):
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    for name in ("d.mp4", "e.mp4", "f.mp4"):
        (folder / name).write_bytes(b"<html>404 not found</html>")
    return folder


def command(work: Path, videos: Path, form: str, *options: str) -> list[str]:
    work.mkdir()
    return [sys.executable, "-m", "faults.campaign", str(work), str(videos), form, *options]


def run(arguments: list[str]) -> dict[str, Any]:
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("form", FORMATS)
def test_a_fault_at_the_ends_of_every_kind_of_operation(tmp_path: Path, videos: Path, form: str) -> None:
    result = run(command(tmp_path / "work", videos, form, "--sample", str(FORMATS.index(form))))
    assert result["broken"] == []
    assert set(result["runs"]) == set(MODES)
    operations = Counter(point.split()[0] for point in result["points"])
    assert set(operations) >= {"open", "write", "close", "fsync", "rename", "link", "unlink", "mkdir"}
    assert {name.split()[1] for name in result["points"]} >= {
        "manifest.json",
        "plan.parquet",
        "shard-00003.json",
        "shard-00003" + {"hdf5": ".h5", "parquet": ".parquet"}[form],
    }


@pytest.mark.parametrize("form", FORMATS)
def test_a_fault_while_a_failed_video_is_tried_again(tmp_path: Path, videos: Path, form: str) -> None:
    result = run(command(tmp_path / "work", videos, form, "--sample", str(FORMATS.index(form)), *MEND))
    assert result["broken"] == []
    assert set(result["runs"]) == set(MODES)
    assert any(re.fullmatch(r"rename shard-00001-[0-9a-f]{12}\..*", point) for point in result["points"])


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [(), MEND], ids=["new", "again"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_fault_at_every_operation(
    tmp_path: Path, videos: Path, form: str, scenario: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    """All of them, and a hundred pairs: the run that mends the first fault meets the second."""
    result = run(command(tmp_path / "work", videos, form, "--pairs", "100", *scenario))
    assert result["broken"] == []
    assert sum(result["runs"].values()) == len(MODES) * len(result["points"]) + 200
    record_property("points", len(result["points"]))


@pytest.mark.parametrize("form", FORMATS)
def test_no_operation_escapes_the_shim(tmp_path: Path, videos: Path, form: str) -> None:
    """The kernel sees the same operations on the folder, in the same order, as the shim counts."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("needs strace and the right to trace")
    names = {call: operation for operation, calls in CALLS.items() for call in calls.split()}
    trace = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(tmp_path / "trace"), "-e", "signal=none"]
    trace += ["-e", "trace=" + ",".join(f"?{name}" for name in names)]
    work = tmp_path / "work"
    result = run([*trace, *command(work, videos, form, "--only-count")])
    folder = f"{work}/whole-{form}"
    seen = []
    for line in (tmp_path / "trace").read_text().splitlines():
        if re.match(r"\d+ +<\.\.\. ", line):
            continue  # the end of a call into which another thread's came: its beginning tells all
        call, rest = re.fullmatch(r"\d+ +(\w+)(.*)", line).groups()  # type: ignore[union-attr]
        reading = call == "openat" and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", rest)
        if reading or not re.search(rf"{re.escape(folder)}[/\">]", rest):
            continue
        path = re.findall(rf"{re.escape(folder)}(?:/([^\">]*))?[\">]", rest)[-1 if "open" not in call else 0]
        seen.append(f"{names[call]} {plain_name(path) or '.'}")
    # The shim does not hand flushes on, and the kernel is not asked about closing.
    assert seen == [point for point in result["points"] if point.split()[0] not in ("fsync", "close")]
