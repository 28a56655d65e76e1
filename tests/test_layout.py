"""The layout's promises: imports go one way, the command starts without torch, the folder map explains itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# folder -> what it may not import; imports go pipelines -> extract -> regionvlp
FORBIDDEN = {
    "regionvlp": ("regionvlp.extract", "regionvlp.pipelines", "extract", "pipelines"),
    "extract": ("regionvlp.pipelines", "extract", "pipelines"),
    "pipelines": ("extract", "pipelines"),
    "configs": ("regionvlp.extract", "regionvlp.pipelines", "extract", "pipelines"),
}
MAY_START_THE_COMMAND = {REPOSITORY / "regionvlp" / "__main__.py"}


def imported_modules(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_imports_go_one_way(folder: str) -> None:
    files = [file for file in (REPOSITORY / folder).rglob("*.py") if file not in MAY_START_THE_COMMAND]
    assert files
    for file in files:
        for name in imported_modules(file):
            for forbidden in FORBIDDEN[folder]:
                assert name != forbidden, f"{file} imports {name}"
                assert not name.startswith(forbidden + "."), f"{file} imports {name}"


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


HEAVY = ("torch", "torchvision", "transformers", "h5py", "pyarrow", "av", "decord", "pydantic")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_the_command_answers_without_heavy_imports(arguments: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; from regionvlp.pipelines.cli import run; run({arguments!r}); "
        f"sys.exit(','.join(sorted(set({HEAVY!r}) & set(sys.modules))) or 0)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, f"imported: {done.stderr}"
    assert "regionvlp" in done.stdout


def test_every_installed_package_is_listed() -> None:
    import tomllib

    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {"regionvlp": "regionvlp", "extract": "regionvlp.extract", "pipelines": "regionvlp.pipelines"}
    found = {"regionvlp.configs"}
    for folder, name in folders.items():
        for init in (REPOSITORY / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(REPOSITORY / folder).parts
            found.add(".".join((name, *parts)))
    assert found == set(settings["packages"])


def test_a_missing_subpackage_says_how_to_install(tmp_path: Path) -> None:
    # A copy of ./regionvlp alone, as Python sees it in the root of a checkout after a non-editable install.
    (tmp_path / "regionvlp").symlink_to(REPOSITORY / "regionvlp")
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in repr(f)]; "
        "import regionvlp.extract"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert "pip install -e ." in done.stderr


def test_light_modules_stay_light(tmp_path: Path) -> None:
    code = (
        "import sys, regionvlp.video, regionvlp.shards, regionvlp.regions; "
        "sys.exit(','.join({'torch', 'av', 'decord', 'h5py', 'pyarrow'} & set(sys.modules)) or 0)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, f"imported: {done.stderr}"


def test_the_public_names_are_there(tmp_path: Path) -> None:
    code = (
        "import regionvlp; regionvlp.open_shards, regionvlp.load_checkpoint, regionvlp.losses.global_contrast, "
        "regionvlp.extract.RegionDetector.load"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
