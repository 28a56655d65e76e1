"""``regionvlp bench serve``: many clients at one server on this machine, for a while.

Each client asks what a browser would: the page, the same as JSON, thumbnails, frames, stretches of videos. The baseline
of the ratio is a new process for each question, which is what ``regionvlp search`` is.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from regionvlp.errors import InputError, RegionVLPError
from regionvlp.pipelines.output import console_for, json_option, write_json

CLIPS = 40
WORDS = ("red", "blue", "green", "circle", "square", "triangle", "moves", "left", "right", "dotted")
LONGEST_WAIT = 60.0  # seconds for one answer, and for the server to start


@dataclass
class Tally:
    """What the clients saw; seconds of each answer, by kind, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@click.command("serve")
@click.option("--index", type=click.Path(path_type=Path), metavar="INDEX", help="An index.  [made for the bench]")
@click.option("--clients", default=50, show_default=True, type=click.IntRange(1, 500))
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1.0, 3600.0))
@json_option
def command(index: Path | None, clients: int, seconds: float, json_path: str | None) -> None:
    """Have --clients ask one server for --seconds: answers a second, their times, errors, memory."""
    console = console_for(json_path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = index if index is not None else made_index(Path(scratch))
        rows, ratios, wrong = measure(folder.absolute(), clients, seconds)
    console.print(f"{clients} clients for {seconds:g} s")
    for row in rows:
        console.print(f"  {row['name']:32} {row['value']:>12,.2f} {row['unit']}")
    for name, ratio in ratios.items():
        console.print(f"  {name:32} {ratio:>12,.2f} times")
    for line in wrong[:5]:
        console.print(f"  wrong: {line}", markup=False)
    write_json({"device": "cpu", "rows": rows, "ratios": ratios}, json_path)


def made_index(folder: Path) -> Path:
    """An index of a toy world, made in a folder."""
    from regionvlp.pipelines.cli import run
    from regionvlp.pipelines.toy.world import write_clips

    write_clips(folder / "videos", CLIPS, split="test", seed=0)
    arguments = ["--videos", str(folder / "videos"), "--out", str(folder / "index"), "--detector", "toy"]
    if run(["index", *arguments, "--frames", "4"]):
        raise RegionVLPError("the index for the bench could not be made", "see above")
    return folder / "index"


def measure(index: Path, clients: int, seconds: float) -> tuple[list[dict[str, Any]], dict[str, float], list[str]]:
    """The rows, the ratio, and what went wrong."""
    with serving(index) as (host, process):
        addresses = _addresses(host)
        tally = Tally()
        _ask(host, addresses, 1, 2.0, Tally())  # warm: memory is counted from here on
        before = _memory(process.pid)
        first = _timed(host, "/?" + urlencode({"q": "a sentence that was not asked before"}))
        _ask(host, addresses, clients, seconds, tally)
        after = _memory(process.pid)
    rows = [{"name": "first_result", "value": 1000 * first, "unit": "ms"}]
    everything = sorted(itertools.chain(*tally.seconds.values()))
    rows.append({"name": "answers", "value": len(everything) / seconds, "unit": "1/s"})
    for kind, times in sorted(tally.seconds.items()):
        ordered = sorted(times)
        for share in (50, 99):
            value = 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
            rows.append({"name": f"{kind}_p{share}", "value": value, "unit": "ms"})
    rows.append({"name": "errors", "value": float(len(tally.wrong)), "unit": "answers"})
    rows.append({"name": "memory_before", "value": before, "unit": "MB"})
    rows.append({"name": "memory_growth", "value": after - before, "unit": "MB"})
    started = time.perf_counter()
    command = [sys.executable, "-m", "regionvlp", "search", str(index), "red circle", "--json", "-"]
    subprocess.run(command, capture_output=True, check=True)
    return rows, {"serve_speed": (time.perf_counter() - started) / first}, tally.wrong


@contextmanager
def serving(index: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server over an index in a process of its own: where it is, and the process."""
    command = [sys.executable, "-m", "regionvlp", "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if " at http://" not in line:
            raise InputError(f"{index} cannot be served", "see the message above")
        yield line.split(" at http://")[1].strip().strip("/"), process
    finally:
        process.terminate()
        process.wait(LONGEST_WAIT)


def _addresses(host: str) -> list[tuple[str, str]]:
    """What clients ask: kinds and addresses."""
    pairs = [" ".join(pair) for pair in itertools.permutations(WORDS, 2)]
    found = [("page", f"/?{urlencode({'q': words})}") for words in pairs]
    found += [("json", f"/api/search?{urlencode({'q': words})}") for words in pairs]
    answers = json.loads(_get(host, f"/api/search?{urlencode({'q': 'red circle', 'top': 30})}"))
    for result in answers["results"]:
        clip = urlencode({"clip": result["clip_id"]})
        found += [("thumbnail", f"/thumbnail?{clip}"), ("frame", f"/frame?{clip}&at={result['start']}")]
        found += [("media", f"/media?{clip}")] if result["media"] else []
    return found


def _ask(host: str, addresses: Sequence[tuple[str, str]], clients: int, seconds: float, tally: Tally) -> None:
    until = time.perf_counter() + seconds
    threads = [threading.Thread(target=_client, args=(host, addresses, until, k, tally)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _client(host: str, addresses: Sequence[tuple[str, str]], until: float, seed: int, tally: Tally) -> None:
    rng, connection = random.Random(seed), http.client.HTTPConnection(host, timeout=LONGEST_WAIT)
    while time.perf_counter() < until:
        kind, address = rng.choice(addresses)
        headers = {"Range": f"bytes={rng.randrange(1000)}-"} if kind == "media" else {}
        started = time.perf_counter()
        try:
            connection.request("GET", address, headers=headers)
            got = connection.getresponse()
            got.read()
        except (OSError, http.client.HTTPException) as error:
            tally.wrong.append(f"{address}: {error!r}")
            connection.close()
            continue
        tally.seconds.setdefault(kind, []).append(time.perf_counter() - started)
        if got.status not in (200, 206):
            tally.wrong.append(f"{address}: {got.status}")
    connection.close()


def _get(host: str, address: str) -> bytes:
    connection = http.client.HTTPConnection(host, timeout=LONGEST_WAIT)
    connection.request("GET", address)
    body = connection.getresponse().read()
    connection.close()
    return body


def _timed(host: str, address: str) -> float:
    started = time.perf_counter()
    _get(host, address)
    return time.perf_counter() - started


def _memory(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
