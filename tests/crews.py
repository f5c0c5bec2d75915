"""Crews of several gloo processes on this machine, which listen on the loopback interface alone.

    python tests/crews.py SIZE MODULE:FUNCTION      calls what the function returns in SIZE processes

Their argument is a function n -> the crew of the first n processes, or None in a process that is not in it. The result
of process 0 is printed as JSON.
"""

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Crews: TypeAlias = "Callable[[int], Any]"
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
HERE = Path(__file__).parent


def ask(work: str, size: int = 4, timeout: float = 300) -> Any:
    """Return the result in process 0 of the function that `module:function` returns."""
    done = subprocess.run(
        [sys.executable, __file__, str(size), work],
        env={**os.environ, **LOOPBACK, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}:{HERE}"},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def _work(store: str, rank: int, size: int, function: Callable[[Crews], object]) -> None:
    import torch.distributed as dist

    from gnflow.crew import Crew
    from gnflow.exchange import Processes

    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    groups = {n: dist.new_group(list(range(n)), backend="gloo") for n in range(2, size + 1)}
    crews = {n: Processes(group) for n, group in groups.items() if rank < n} | ({1: Crew()} if rank == 0 else {})
    result = function(crews.get)
    if rank == 0:
        print(json.dumps(result), flush=True)
    dist.barrier()


def _main(size: int, work: str) -> int:
    """Fork the processes after the imports and preparations, which take longer than most work."""
    module, _, name = work.partition(":")
    function = getattr(importlib.import_module(module), name)()
    with tempfile.TemporaryDirectory() as folder:
        forked = multiprocessing.get_context("fork").Process
        children = [forked(target=_work, args=(f"{folder}/store", rank, size, function)) for rank in range(size)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        return any(child.exitcode for child in children)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), sys.argv[2]))
