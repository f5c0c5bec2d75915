"""Network namespaces that have loopback alone: what a program opens there cannot be reached from anywhere else."""

import os
import subprocess
from collections.abc import Sequence

FLAGS = "-n" if os.geteuid() == 0 else "-Urn"


def isolate(command: Sequence[str]) -> list[str]:
    """The command inside such a namespace; the process that is started becomes the command."""
    return ["unshare", FLAGS, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def why_not() -> str:
    """Why there can be no namespace here; empty if there can."""
    try:
        done = subprocess.run(isolate(["true"]), capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no network namespace: {error}"
    return "" if done.returncode == 0 else f"no network namespace: {done.stderr.strip()}"
