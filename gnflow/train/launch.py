"""Start the processes of a run on this machine with torch's elastic launcher, and return one exit code for all.

The launcher and the processes find one another through a file, and gloo and NCCL use the loopback interface, so that
nothing can be reached from another machine.
"""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._C._distributed_c10d import FileStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from gnflow.errors import EnvironmentProblem, Interrupted, Preempted
from gnflow.train.join import STORE

BACKEND = "gnflow-file"


def launch(size: int, arguments: Sequence[str], restarts: int, wants_gpu: bool) -> int:
    """Run `gnflow ARGUMENTS` in `size` processes, and again up to `restarts` times if one is lost.

    Returns the exit code of the first process that failed. Raises EnvironmentProblem for more processes than GPUs.
    """
    gpus = torch.cuda.device_count() if wants_gpu else 0
    if gpus and size > gpus:
        raise EnvironmentProblem(f"--devices {size}: torch sees {gpus} GPU{'s' * (gpus > 1)}")
    if not gpus and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // size)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        print(f"each process has {threads} thread{'s' * (threads > 1)}; OMP_NUM_THREADS sets another number")
    for attempt in range(restarts + 1):
        code, words = _attempt(size, arguments)
        if words:
            print(words, file=sys.stderr, flush=True)
        if code != EnvironmentProblem.exit_code or attempt == restarts:
            break
        print(f"starting again from the newest checkpoint ({attempt + 1} of at most {restarts})", flush=True)
        arguments = [argument for argument in arguments if argument != "--fresh"]
    return code


def _attempt(size: int, arguments: Sequence[str]) -> tuple[int, str]:
    """Return the exit code, and a message for the user unless a process has already printed one."""
    with tempfile.TemporaryDirectory(prefix="gnflow-") as folder, _quiet():
        os.environ[STORE] = str(Path(folder) / "processes")
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=size, run_id="gnflow", max_restarts=0, rdzv_backend=BACKEND,
            rdzv_endpoint=str(Path(folder) / "launcher"), logs_specs=DefaultLogsSpecs(),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "gnflow", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            code, first = failure.exitcode, error.failures.get(0)
            if code >= 0:
                told = first is not None and first.exitcode == code
                words = f"process {rank} of {size} failed; its words are in logs/rank_{rank}.txt of the run directory"
                return code, "" if told else words
            name = signal.Signals(-failure.exitcode).name
            return EnvironmentProblem.exit_code, (
                f"process {rank} of {size} is gone (killed by {name}); the same command resumes, with any --devices"
            )
        except SignalException as error:
            stopped = Interrupted if error.sigval is signal.SIGINT else Preempted
            return stopped.exit_code, ""
        finally:
            del os.environ[STORE]
    return 0, ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's reports on processes that failed, since these processes print their own errors."""
    logger = logging.getLogger("torch.distributed.elastic")
    before, logger.disabled = logger.level, False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class FileRendezvous(RendezvousHandler):
    """The rendezvous of a single launcher, which opens no port."""

    def __init__(self, path: str) -> None:
        self._path, self._closed = path, False

    @property
    def use_agent_store(self) -> bool:
        """Return False: the processes do not connect to the store of the launcher."""
        return False

    def get_backend(self) -> str:
        """Return the name under which this rendezvous is registered."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Return a store in a file, for one launcher."""
        return RendezvousInfo(FileStore(self._path, 1), 0, 1, RendezvousStoreInfo("127.0.0.1", 0))

    def is_closed(self) -> bool:
        """Return whether this rendezvous was closed."""
        return self._closed

    def set_closed(self) -> None:
        """Close this rendezvous."""
        self._closed = True

    def num_nodes_waiting(self) -> int:
        """Return 0: no other launcher may join."""
        return 0

    def get_run_id(self) -> str:
        """Return the name of the run, which is the only one."""
        return "gnflow"

    def shutdown(self) -> bool:
        """Close this rendezvous, and return True."""
        self.set_closed()
        return True


def _make(parameters: RendezvousParameters) -> RendezvousHandler:
    return FileRendezvous(parameters.endpoint)


rendezvous_handler_registry.register(BACKEND, _make)
