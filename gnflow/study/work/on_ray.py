"""An executor on Ray: every command is a Ray task, on this machine or on the cluster that RAY_ADDRESS names.

Ray listens on the address of the machine, and whoever reaches its ports can run code there. So it is started with
authentication by token only.
"""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from gnflow.errors import EnvironmentProblem
from gnflow.study.work.executor import LOST, Command, start_process

POLL = 0.5  # seconds after which a worker looks whether its task was cancelled


class OnRay:
    """Runs commands as Ray tasks, each with one CPU of Ray, and with one GPU if the cluster has any."""

    def __init__(self, slots: int | None, gpus: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gnflow-ray-", ignore_cleanup_errors=True)
        try:
            self._ray = _connect(slots, gpus, self._folder.name)
        except EnvironmentProblem:
            self._folder.cleanup()
            raise
        resources = self._ray.cluster_resources()
        on_gpu = resources.get("GPU", 0) >= 1
        self.slots = slots or int(resources["GPU" if on_gpu else "CPU"])
        # Ray's own retries would hide the exit codes.
        self._run = self._ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_retries=0)(run_command)
        self._running: dict[object, str] = {}

    def start(self, name: str, command: Command) -> None:
        """Submit a task."""
        self._running[self._run.remote(command)] = name

    def collect(self, seconds: float) -> Sequence[tuple[str, int]]:
        """Return what has ended; the code is LOST if the worker or its machine is gone."""
        if not self._running:
            time.sleep(seconds)
            return []
        ended, _ = self._ray.wait([*self._running], num_returns=1, timeout=seconds)
        return [(self._running.pop(task), self._read_code(task)) for task in ended]

    def stop(self) -> None:
        """Cancel the tasks; their workers send SIGTERM to the commands, and wait."""
        self._cancel(force=False)

    def kill(self) -> None:
        """Kill the workers, and with them the commands."""
        self._cancel(force=True)

    def close(self) -> None:
        """Leave the cluster. One that was started here ends, with all of its workers."""
        self._ray.shutdown()
        self._folder.cleanup()

    def _cancel(self, *, force: bool) -> None:
        for task in self._running:
            self._ray.cancel(task, force=force)

    def _read_code(self, task: object) -> int:
        try:
            return int(self._ray.get(task))
        except self._ray.exceptions.RayError:
            return LOST


def run_command(command: Command) -> int:
    """Run a command in a worker and return its exit code. When the task is cancelled, the command is asked to end."""
    process = start_process(command, apart=False)  # Ray kills the process group of a worker that is gone
    while True:
        try:
            return process.wait(POLL)
        except subprocess.TimeoutExpired:
            pass
        except BaseException:  # Ray raises KeyboardInterrupt in a task that is cancelled
            process.terminate()
            return process.wait()


def _connect(slots: int | None, gpus: int, folder: str) -> ModuleType:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine. Return the module `ray`."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0")  # both are read when ray is imported
    local = "RAY_ADDRESS" not in os.environ
    if local:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise EnvironmentProblem(f"--on ray needs Ray ({error}): pip install 'gnflow[ray]'") from None
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    own = {"num_cpus": slots, "num_gpus": gpus, "include_dashboard": False, "_temp_dir": folder} if local else {}
    try:
        ray.init(**quiet, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = "a Ray cluster cannot be started here" if local else f"no Ray cluster at {os.environ['RAY_ADDRESS']}"
        raise EnvironmentProblem(f"{where}: {error}") from None
    return ray
