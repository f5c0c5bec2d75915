"""Make this process one of several that work on a run: it joins the others, and all end together."""

import fcntl
import os
import socket
import struct
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
SIOCGIFADDR = 0x8915  # Linux: the address of an interface
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
    """Join the processes that a launcher has started. On one machine they listen on the loopback interface alone.

    On several machines gloo takes the interface that leads to process 0, unless GLOO_SOCKET_IFNAME names another.
    """
    backend = choose_backend(wants_gpu)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    elif interface := find_interface(os.environ.get("MASTER_ADDR", "")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
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


def choose_backend(wants_gpu: bool) -> str:
    """Return the library that exchanges tensors: NCCL between GPUs, gloo between CPUs."""
    return "nccl" if wants_gpu and torch.cuda.is_available() else "gloo"


def find_interface(address: str) -> str | None:
    """Return the network interface that leads to an address; None if there is none, or the address is no IPv4 one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((address, 9))  # sends nothing
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if found[20:24] == own:
                    return name
    return None


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
