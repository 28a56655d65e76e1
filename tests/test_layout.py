"""The layout's promises: imports go one way, nothing grows too long, the command starts without torch."""

from __future__ import annotations

import ast
import re
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
# Inside regionvlp, from the top: a package knows itself and those below it, and nothing of those above.
LAYERS = (
    *("search", "report", "checkpoints", "training", "evaluation", "systems", "data", "losses", "models"),
    *("shards", "store", "weights", "video"),
)
GROUND = {"errors", "config", "regions", "devices", "progress", "lazy"}
# Above everything: what `import regionvlp` gives, and how the command is started.
QUOTED = re.compile(r"regionvlp(\.[a-z_]\w*)+")
TOP_FILES = {"__init__", "__main__"}
MAX_FILE, MAX_FUNCTION = 500, 80  # lines
KERNELS = "regionvlp/losses/region_word/kernels.py"  # a kernel cannot be cut into functions for its reader
MAY_START_THE_COMMAND = {REPOSITORY / "regionvlp" / "__main__.py"}


def imported_modules(file: Path) -> set[str]:
    """What a file imports: at its top, in functions, for type checkers."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def quoted_modules(file: Path) -> set[str]:
    """What a file names in quotes, to be imported on first use."""
    texts = (node.value for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and QUOTED.fullmatch(text)}


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_imports_go_one_way(folder: str) -> None:
    files = [file for file in (REPOSITORY / folder).rglob("*.py") if file not in MAY_START_THE_COMMAND]
    assert files
    for file in files:
        for name in imported_modules(file):
            for forbidden in FORBIDDEN[folder]:
                assert name != forbidden, f"{file} imports {name}"
                assert not name.startswith(forbidden + "."), f"{file} imports {name}"


def layer(module: str) -> int | None:
    """How high a module of regionvlp stands; None for what is not part of it, or is its front."""
    parts = module.split(".")
    if parts[0] != "regionvlp" or len(parts) < 2:
        return None
    if parts[1] in LAYERS:
        return len(LAYERS) - LAYERS.index(parts[1])
    return 0 if parts[1] in GROUND else None


def test_every_package_has_its_layer() -> None:
    library = REPOSITORY / "regionvlp"
    found = {path.stem for path in library.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found <= GROUND | set(LAYERS) | TOP_FILES, "a new package or module: say where it stands"


def test_arrows_point_down() -> None:
    up: dict[str, set[str]] = {}
    for file in (REPOSITORY / "regionvlp").rglob("*.py"):
        relative = file.relative_to(REPOSITORY)
        if len(relative.parts) == 2 and relative.stem in TOP_FILES:
            continue
        own = layer(".".join(relative.with_suffix("").parts))
        assert own is not None, f"{relative} stands in no layer"
        for name in imported_modules(file) | quoted_modules(file):
            theirs = layer(name)
            if theirs is not None and theirs > own:
                up.setdefault(str(relative), set()).add(name.split(".")[1])
    assert up == {}


def code_files() -> list[Path]:
    return [file for folder in ("regionvlp", "extract", "pipelines") for file in (REPOSITORY / folder).rglob("*.py")]


def test_files_stay_short() -> None:
    lengths = {
        file.relative_to(REPOSITORY): len(file.read_text(encoding="utf-8").splitlines()) for file in code_files()
    }
    assert {str(file): length for file, length in lengths.items() if length > MAX_FILE} == {}


def test_functions_stay_short() -> None:
    long = {}
    for file in code_files():
        relative = str(file.relative_to(REPOSITORY))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and relative != KERNELS:
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    long[f"{relative}: {node.name}"] = length
    assert long == {}


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
