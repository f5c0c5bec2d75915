"""What runs the commands of a study: the protocol, and the executor that starts processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

LOST = -int(signal.SIGKILL)
"""Exit code of a command whose process, or whose worker, was killed."""
PAUSE = 0.05  # seconds between two looks at the processes


class Command(NamedTuple):
    """What a worker needs to know to start a process."""

    arguments: Sequence[str]
    """Of gnflow."""
    folder: str
    output: str
    """The file to which standard output is appended. Standard error replaces the file `ERRORS` of it."""
    environment: Mapping[str, str]
    """What is added to the environment of the worker."""


class Executor(Protocol):
    """Where commands are run: up to `slots` at a time."""

    slots: int

    def start(self, name: str, command: Command) -> None:
        """Start a command. The caller sees to it that a slot is free."""

    def collect(self, seconds: float) -> Sequence[tuple[str, int]]:
        """Return the names and exit codes of commands that have ended; wait for one for at most so many seconds."""

    def stop(self) -> None:
        """Ask every command to save and end."""

    def kill(self) -> None:
        """End every command at once."""

    def close(self) -> None:
        """Stop what still runs, and give everything back."""


def start_process(command: Command, *, apart: bool) -> subprocess.Popen[bytes]:
    """Start a command with its output in files.

    If it is `apart`, in a session of its own, Ctrl-C in a terminal does not reach it. Otherwise it is in the process
    group of its parent.
    """
    with Path(command.output).open("ab") as output, find_errors(command.output).open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "gnflow", *command.arguments],
            cwd=command.folder,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=apart,
        )


def find_errors(output: str | Path) -> Path:
    """Return the file of the standard error of a command."""
    return Path(output).with_suffix(".err")


class Processes:
    """Runs commands in processes on this machine, each with one of its GPUs if there are any.

    Ctrl-C reaches gnflow alone, which then asks each process once to save and end: a second signal would kill it.
    """

    def __init__(self, slots: int, gpus: Sequence[str] = ()) -> None:
        self.slots = slots
        self._running: dict[str, tuple[subprocess.Popen[bytes], str]] = {}
        self._free = [gpus[slot % len(gpus)] if gpus else "" for slot in range(slots)]

    def start(self, name: str, command: Command) -> None:
        """Start a process on the GPU of a free slot."""
        gpu = self._free.pop()
        visible = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        process = start_process(command._replace(environment={**command.environment, **visible}), apart=True)
        self._running[name] = process, gpu

    def collect(self, seconds: float) -> list[tuple[str, int]]:
        """Return what has ended."""
        until = time.monotonic() + seconds
        while not (ended := [name for name, (process, _) in self._running.items() if process.poll() is not None]):
            if time.monotonic() >= until:
                break
            time.sleep(PAUSE)
        found = []
        for name in ended:
            process, gpu = self._running.pop(name)
            self._free.append(gpu)
            found.append((name, process.returncode))
        return found

    def stop(self) -> None:
        """Send SIGTERM."""
        for process, _ in self._running.values():
            process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        for process, _ in self._running.values():
            process.kill()

    def close(self) -> None:
        """Ask the processes that still run to save and end."""
        self.stop()
