"""Make this process one of several that work on a run: it joins the others, and all end together."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from gnflow import streams
from gnflow.crew import ALONE, Crew
from gnflow.errors import Diverged, EnvironmentProblem, Interrupted, Preempted
from gnflow.exchange import ELSEWHERE, LostCrew, Processes
from gnflow.train.agreement import BEGINNING

STORE = "GNFLOW_STORE"
"""The file through which the processes of `gnflow run --devices` find one another."""
GRACE = 1.0
"""Seconds for which a process that has lost another one waits, so that the other one is seen to be the first to end."""


def work(task: Callable[[Crew], int], size: int, wants_gpu: bool) -> int:
    """Carry out the task as one of `size` processes, and end this process with its exit code.

    If `size` is 1, return the exit code instead. Raises EnvironmentProblem if the processes do
    not find one another.
    """
    if size == 1:
        return task(ALONE)
    crew = join(wants_gpu)
    code, waits = 1, False
    try:
        code, waits = task(crew), True
    except LostCrew as lost:
        code, words = streams.explain(lost)
        print(words, file=sys.stderr, flush=True)
        time.sleep(GRACE)
    except (Exception, KeyboardInterrupt) as error:
        code, words = streams.explain(error)
        told = ELSEWHERE in getattr(error, "__notes__", ())
        # These end all processes at once; an error of one process alone should be the first that the launcher sees.
        waits = not crew.leads and (told or isinstance(error, Preempted | Interrupted | Diverged))
        if words and not waits:
            print(words, file=sys.stderr)
    return _leave(crew, code, waits)


def join(wants_gpu: bool) -> Processes:
    """Join the processes that a launcher has started. On one machine they listen on the loopback interface alone."""
    gpu = wants_gpu and torch.cuda.is_available()
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rank, size, backend = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "nccl" if gpu else "gloo"
    patience = timedelta(seconds=BEGINNING)
    try:
        if path := os.environ.get(STORE):
            store = FileStore(path, size)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
        else:
            dist.init_process_group(backend, timeout=patience)
        return Processes()
    except (RuntimeError, ValueError) as error:
        raise EnvironmentProblem(f"process {rank} of {size} cannot reach the others: {error}") from error


def _leave(crew: Crew, code: int, waits: bool) -> NoReturn:
    """End this process. If it `waits`, process 0 ends first, since the launcher ends all when one of them fails."""
    with suppress(Exception):
        streams.flush()
    if waits:
        crew.expect_within(BEGINNING)
        with suppress(LostCrew):
            crew.collect(code)
    # A library that ends on its own would abort its peers in between.
    os._exit(code)
