"""Seconds of a step of Gauss-Newton, full and layerwise, in 1 and 2 processes of one thread each.

    python pipelines/benchmarks/devices.py [--steps 7] [--width 192] [--layers 6]

The step in one process and the step in two take turns, so that other work on the machine slows both. The processes use
gloo over the loopback interface and run eagerly. Medians are printed with the plan's prediction, and the bits of the
weights are compared. On a busy machine processes wait for a core: then the CPU seconds of the busiest process say what
the wall clock would say on a free one, apart from the time in which one process waits for another.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from gnflow import trees
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import compile as make_program
from gnflow.compiler.scaling import predict
from gnflow.crew import ALONE
from gnflow.exchange import Processes
from gnflow.spec.experiment import Experiment
from gnflow.train.reproducible import make_reproducible
from gnflow.workspace import Workspace

INNER = {"kind": "muon", "microbatches": 4, "others": {"kind": "adamw", "learning_rate": 0.01}}
SEARCH = {"kind": "geometric", "trials": 3, "microbatches": 4}


def experiment(blocks: str, layers: int, width: int) -> Experiment:
    """A decoder on bytes; its search is small, as it is next to the solve of a paper-scale run."""
    return Experiment.model_validate(
        {
            "name": "devices",
            "model": {"kind": "decoder", "layers": layers, "width": width, "heads": 4},
            "data": {"source": {"kind": "files", "paths": ["none"]}, "tokenizer": "bytes", "context": 64},
            "optimizer": {
                "kind": "gauss_newton", "blocks": blocks, "inner": INNER, "inner_steps": 4, "search": SEARCH
            },
            "training": {"steps": 1, "rows": 4, "shares": 4, "device": "cpu", "start": "scratch"},
            "metrics": [],
            "compile": {"mode": "off"},
            "tracking": "none",
        }
    )  # fmt: skip


def measure(rank: int, store: str, planned: Plan, steps: int) -> None:
    """Take the same step in turn alone (process 0) and together, and prints medians in process 0."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    crew = Processes()
    programs = {1: make_program(planned, crew=ALONE), 2: make_program(planned, crew=crew)}
    start = programs[1].init()
    shape = (planned.microbatches, planned.experiment.training.rows, planned.experiment.data.context + 1)
    tokens = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    work: dict[int, list[float]] = {1: [], 2: []}
    ends = {}
    with make_reproducible(Workspace(Path(tempfile.gettempdir()))):
        for _ in range(steps + 1):
            for size, program in programs.items():
                crew.collect(None)
                if rank < size:
                    state = start._replace(params=trees.clone(start.params), optimizer=trees.clone(start.optimizer))
                    began, worked = time.perf_counter(), time.process_time()
                    ends[size], _ = program.step(state, tokens)
                    seconds[size].append(time.perf_counter() - began)
                    work[size].append(time.process_time() - worked)
    most = crew.find_largest(*work[2])
    if rank == 0:
        one, two = (statistics.median(seconds[size][1:]) for size in (1, 2))
        cpu = statistics.median(work[1][1:]), statistics.median(most[1:])
        same = all(torch.equal(ends[1].params[name], weight) for name, weight in ends[2].params.items())
        predicted = 2 * predict(planned, 2).efficiency
        print(
            f"{planned.experiment.optimizer.blocks}: {one:.2f} s in 1 process, {two:.2f} s in 2: {one / two:.2f} times "
            f"as fast; {cpu[0]:.2f} and {cpu[1]:.2f} CPU s of the busiest: {cpu[0] / cpu[1]:.2f} times; the plan says "
            f"{predicted:.2f} for the solve; medians of {steps}; "
            f"{'the same bits' if same else 'OTHER BITS'}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    crew.collect(None)
    os._exit(0)


def main() -> None:
    """Measure both methods."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    asked = parser.parse_args()
    for blocks in ("layer", "full"):
        planned = plan(experiment(blocks, asked.layers, asked.width))
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(measure, (f"{folder}/store", planned, asked.steps), nprocs=2)


if __name__ == "__main__":
    main()
