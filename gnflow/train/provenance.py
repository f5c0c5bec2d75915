"""Record where a run comes from: code, versions, machine and digests, with one entry for each session."""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from gnflow import secrets
from gnflow.errors import DataError, DiskProblem
from gnflow.secrets import hide_secrets
from gnflow.train import disk, repository
from gnflow.train.plugins import Plugin

FILE = "provenance.json"
PACKAGES = ("gnflow", "torch", "numpy", "polars", "safetensors", "pydantic", "tokenizers", "datasets", "mlflow", "dvc")
VARIABLES = re.compile(
    r"(OMP|MKL|ONEDNN|DNNL|OPENBLAS|KMP|GOMP)_\w+|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|LAUNCH_BLOCKING)|CUBLAS_WORKSPACE_CONFIG"
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
    processes: int = 1,
    sent: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Add this session to provenance.json, and report why git does not name a commit. Raises DiskProblem.

    `processes` work on the run, and process 0 has `sent` so many bytes to the others after a step.
    """
    git = repository.read_state(root, directory)
    if git.problem and repository.is_in_repository(root):
        report(f"warning: provenance.json does not describe this code completely, because git answered: {git.problem}")
    known = read(directory)
    before = known.get("sessions")
    session = {
        "started": time.time(),
        "command": hide_secrets(shlex.join(sys.orig_argv)),
        "resumed_from": resumed_from,
        **(
            {"changed": {key: {"there": there, "now": now} for key, (there, now) in changed.items()}} if changed else {}
        ),
        **_describe_machine(device),
        **({"processes": processes, "sent_a_step": sent} if processes > 1 else {}),
        "versions": _list_versions(),
        **({"plugins": [plugin._asdict() for plugin in plugins]} if plugins else {}),
        "environment": _select_environment(os.environ),
    }
    disk.write_json(
        directory / FILE,
        {
            "git": git.found,
            **({"git_problem": git.problem} if git.problem else {}),
            "digests": dict(digests),
            "seeds": dict(seeds),
            "sessions": [*(before if isinstance(before, list) else []), session],
        },
    )


def read(directory: Path) -> dict[str, object]:
    """Read provenance.json; empty if there is none. Raises DiskProblem if it cannot be read."""
    path = directory / FILE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _explain_unreadable(path, str(error)) from error
    if not isinstance(content, dict):
        raise _explain_unreadable(path, "it holds no JSON object")
    return content


def _explain_unreadable(path: Path, reason: str) -> DiskProblem:
    return DiskProblem(
        f"{path} cannot be read: {reason}\n"
        "restore a good copy, or delete the file and lose its record of earlier sessions and their data"
    )


def read_digest(directory: Path, name: str) -> str | None:
    """Return the recorded digest of what a run has used: its `data`, or the `weights` that it began with."""
    match read(directory):
        case {"digests": dict(digests)} if isinstance(digest := digests.get(name), str):
            return digest
        case _:
            return None


def require_same_data(directory: Path, digest: str, shards: Path) -> None:
    """Raise DataError if the run in `directory` has used other data than these `shards`."""
    known = read_digest(directory, "data")
    if known is not None and known != digest:
        raise DataError(
            f"the data in {shards} changed since this run began (SHA-256 {known[:12]}, now {digest[:12]}); "
            "restore the old data, or --fresh starts the run again"
        )


def _describe_machine(device: torch.device) -> dict[str, object]:
    cuda = device.type == "cuda"
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": find_processor(),
        "cores": os.cpu_count(),
        "available": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
    }


def find_processor() -> str:
    """Return the model name of the CPU."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def _list_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _select_environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: secrets.HIDDEN if secrets.is_secret_name(name) else hide_secrets(value)
        for name, value in sorted(variables.items())
        if VARIABLES.fullmatch(name)
    }
