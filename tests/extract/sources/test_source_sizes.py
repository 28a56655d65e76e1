"""Many videos: nothing is looked at twice, and memory does not grow with what is thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

from regionvlp.errors import InputError
from regionvlp.extract.run.plan import update_plan
from regionvlp.extract.sources import open_source
from regionvlp.shards import PlanTable, read_plan, write_plan

MEASURED = """
import sys
from pathlib import Path
from regionvlp.extract.run.plan import update_plan
from regionvlp.extract.sources import open_source
from regionvlp.shards import read_plan, write_plan
found = open_source(sys.argv[1]).scan()
write_plan(Path(sys.argv[2]), update_plan(None, found, 512).added)
again = update_plan(read_plan(Path(sys.argv[2])), found, 512)
assert not len(again.added) and not again.changed
# Not ru_maxrss, which a process inherits from the one that started it.
lines = Path("/proc/self/status").read_text().splitlines()
print(len(found), next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")))
"""


def fill(root: Path, count: int) -> None:
    """Links to a few files (a file takes no more than so many): folders of 1000 names."""
    for number in range(count):
        folder = root / f"{number // 1000:03d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
            (folder / "000.mp4").write_bytes(b"x")
        else:
            os.link(folder / "000.mp4", folder / f"{number % 1000:03d}.mp4")


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_large_folder_is_listed_with_one_look_at_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    fill(tmp_path / "v", count)
    looks, stat = 0, os.stat

    def counted(*args: object, **options: object) -> os.stat_result:
        nonlocal looks
        looks += 1
        return stat(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", counted)
    found = open_source(tmp_path / "v").scan()
    assert len(found) == count
    assert looks < count + count / 1000 + 20
    plan = update_plan(None, found, 512).added
    assert plan.rows(0)[1][1:3] == ("000/001.mp4", 1)
    assert len(plan.shards()) == -(-count // 512)


def test_every_name_that_is_no_text_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "v").mkdir()
    for number in range(40):
        (tmp_path / "v" / os.fsdecode(b"%d \xe9.mp4" % number)).write_bytes(b"x")
        (tmp_path / f"v/{number}.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"40 names that cannot be ids: .*and 35 more, listed above") as caught:
        open_source(tmp_path / "v").scan()
    assert str(caught.value).isascii()
    assert all(f"'{number} \\udce9.mp4'" in caplog.text for number in range(40))


def synthesised(path: Path, rows: int) -> Path:
    """A list as WebVid's, written in pieces."""
    caption = '"Young woman, walking on the ""beach"" at sunset in slow motion"'
    with path.open("w") as file:
        file.write("videoid,name,page_idx,page_dir,duration,contentUrl\n")
        for number in range(rows):
            page = f"{number * 7919 % 1080 * 50 + 1:06d}_{number * 7919 % 1080 * 50 + 50:06d}"
            file.write(f"{10**9 + number * 419},{caption},{number % 9},{page},PT00H00M17S,https://host/{number}.mp4\n")
    return path


def test_a_long_list_is_planned_as_a_short_one(tmp_path: Path) -> None:
    found = open_source(synthesised(tmp_path / "w.csv", 60_000)).scan()
    ids = found.column("video_id").to_pylist()
    assert ids == sorted(ids)
    assert len(set(ids)) == 60_000
    assert pc.all(pc.match_substring_regex(found.column("video_id"), r"^\d{6}_\d{6}/\d{10}$")).as_py()
    first, later = found.slice(0, 50_000), found
    plan = update_plan(None, first, 512).added
    write_plan(tmp_path, plan)
    planned = read_plan(tmp_path)
    assert planned is not None
    added = update_plan(planned, later, 512).added
    assert added.shards()[0] == plan.shards()[-1] + 1
    assert [row.video_id for row in planned.followed_by(added)] == ids
    assert isinstance(added, PlanTable)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")
def test_two_and_a_half_million_rows_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    path = synthesised(tmp_path / "w.csv", 2_500_000)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 2_500_000
    assert megabytes < 1000
