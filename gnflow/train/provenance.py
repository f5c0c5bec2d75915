"""Record where a run comes from: code, versions, machine and digests, with one entry for each session."""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gnflow import secrets
from gnflow.errors import DataError
from gnflow.secrets import without_secrets
from gnflow.train import disk
from gnflow.train.plugins import Plugin

FILE = "provenance.json"
DIFF = "dirty.diff"
LONGEST_INLINE_DIFF = 16_000  # number of characters; a longer diff is written to a file of its own
LONGEST_DIFF = 1_000_000
MOST_UNTRACKED = 100
PACKAGES = ("gnflow", "torch", "numpy", "polars", "safetensors", "pydantic", "tokenizers", "datasets", "mlflow", "dvc")
VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS|KMP|GOMP)_\w+|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|LAUNCH_BLOCKING)|CUBLAS_WORKSPACE_CONFIG"
    r"|NVIDIA_TF32_OVERRIDE|PYTORCH_\w+|TORCH(INDUCTOR|DYNAMO)?_\w+|TRITON_\w+|CC|CXX|CXXFLAGS"
    r"|(LOCAL_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|PYTHONHASHSEED|MLFLOW_TRACKING_URI|HF_HUB_OFFLINE|GNFLOW_\w+"
)


def record(
    directory: Path,
    root: Path,
    *,
    digests: Mapping[str, str],
    seeds: Mapping[str, int],
    device: torch.device,
    resumed_from: int | None,
    plugins: Sequence[Plugin] = (),
    changed: Mapping[str, tuple[str, str]] = {},
) -> None:
    """Add this session to provenance.json. Raises DiskProblem."""
    known = read(directory)
    before = known.get("sessions")
    session = {
        "started": time.time(),
        "command": without_secrets(shlex.join(sys.orig_argv)),
        "resumed_from": resumed_from,
        **(
            {"changed": {key: {"there": there, "now": now} for key, (there, now) in changed.items()}} if changed else {}
        ),
        **_machine(device),
        "versions": _versions(),
        **({"plugins": [plugin._asdict() for plugin in plugins]} if plugins else {}),
        "environment": _environment(os.environ),
    }
    disk.write_json(
        directory / FILE,
        {
            "git": _git(root, directory),
            "digests": dict(digests),
            "seeds": dict(seeds),
            "sessions": [*(before if isinstance(before, list) else []), session],
        },
    )


def read(directory: Path) -> dict[str, object]:
    """Read provenance.json; empty if there is none."""
    try:
        content = json.loads((directory / FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def data_digest(directory: Path) -> str | None:
    """Return the digest of the data that the run has used so far."""
    match read(directory):
        case {"digests": {"data": str(digest)}}:
            return digest
        case _:
            return None


def require_same_data(directory: Path, digest: str, shards: Path) -> None:
    """Raise DataError if the run in `directory` has used other data than these `shards`."""
    known = data_digest(directory)
    if known is not None and known != digest:
        raise DataError(
            f"the data in {shards} changed since this run began (SHA-256 {known[:12]}, now {digest[:12]}); "
            "bring the old data back, or --fresh starts the run again"
        )


def _machine(device: torch.device) -> dict[str, object]:
    cuda = device.type == "cuda"
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "available": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
    }


def processor() -> str:
    """Return the model name of the CPU."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: secrets.HIDDEN if secrets.is_name(name) else without_secrets(value)
        for name, value in sorted(variables.items())
        if VARIABLES.fullmatch(name)
    }


def _git(root: Path, directory: Path) -> dict[str, object] | None:
    """Return the commit, branch and uncommitted changes of the project; None outside a repository or without git."""
    commit = _ask(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _ask(root, "status", "--porcelain", "--untracked-files=no")
    untracked = (_ask(root, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    outputs = f"{directory.name}/"
    untracked = [name for name in untracked if outputs not in name]
    found: dict[str, object] = {
        "commit": commit.strip(),
        "branch": (_ask(root, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "remote": without_secrets((_ask(root, "remote", "get-url", "origin") or "").strip()) or None,
        "dirty": bool(changed),
        "untracked": untracked[:MOST_UNTRACKED],
    }
    if changed:
        diff = without_secrets(_ask(root, "diff", "HEAD") or "")
        if len(diff) > LONGEST_INLINE_DIFF:
            rest = len(diff) - LONGEST_DIFF
            cut = f"{diff[:LONGEST_DIFF]}\n... {rest:,} more characters left out\n" if rest > 0 else diff
            disk.write(directory / DIFF, cut.encode())
            found["diff_file"] = DIFF
        else:
            found["diff"] = diff
    return found


def _ask(root: Path, *question: str) -> str | None:
    command: Sequence[str] = ("git", "-C", str(root), "--no-optional-locks", *question)
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
