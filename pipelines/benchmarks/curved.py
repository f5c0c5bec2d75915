"""Time and peak memory of the region `curved` in parts of `gradient`'s; writes curved.json and curved.md.

`difference` is `curved` with `optimizer.tangent: difference`. All are compiled, with plain attention and the same
weights and tokens; every measurement has a process of its own. Memory is what the kernel counted as resident at the
highest point of one call after two others (VmHWM, set back before it), less what was resident before it: arguments are
not in it, results are. Blocks are mapped, and unmapped when they are freed, so that no memory of earlier calls is used
again unseen. Where time is measured the process keeps what it frees: by default glibc hands it back, and page faults of
the next call cost what the machine pleases. Linux only.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from alone import measure_alone  # noqa: E402  # a script's neighbour
from measure import machine, quartiles, timed  # noqa: E402

from gnflow.compiler.plan import Plan, plan  # noqa: E402
from gnflow.compiler.program import compile as make_program  # noqa: E402
from gnflow.spec.experiment import Experiment  # noqa: E402
from gnflow.train.allocator import keep_memory  # noqa: E402

RUNS, THREADS = 25, (1, 2)
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
MODELS = ("curved", "difference")
REGIONS = ("curved", "difference", "gradient")
COLUMNS = " | ".join((*REGIONS, *(f"{region} / gradient" for region in MODELS)))


class Size(NamedTuple):
    """A decoder with 4 heads, and its micro-batch."""

    layers: int
    width: int
    vocabulary: int
    rows: int
    context: int

    def __str__(self) -> str:
        return f"{self.layers} layers, width {self.width}, {self.vocabulary} words, {self.rows} x {self.context} tokens"


SMALL, LARGE = Size(4, 256, 2048, 8, 128), Size(4, 256, 32000, 8, 1024)
TIME, MEMORY = {SMALL: 1.45}, {SMALL: 1.6, LARGE: 1.25}  # aimed at


def main(folder: Path = HERE, time: dict[Size, float] = TIME, memory: dict[Size, float] = MEMORY) -> None:
    """Every measurement in turn."""
    result = {
        "machine": machine(),
        "time": [
            measure_alone(__file__, "times", size, threads) | {"target": target}
            for size, target in time.items()
            for threads in THREADS
        ],
        "memory": [_memory(size, target) for size, target in memory.items()],
    }
    (folder / "curved.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "curved.md").write_text(report(result))


def times(size: Size, threads: int) -> dict[str, object]:
    """Milliseconds of interleaved calls, the ratio of their medians, and that of their FLOPs."""
    keep_memory()
    torch.set_num_threads(threads)
    flops, calls = _regions(size)
    seconds: dict[str, list[float]] = {name: [] for name in REGIONS}
    for i in range(RUNS + 2):
        for name in REGIONS if i % 2 else reversed(REGIONS):
            seconds[name].append(timed(calls[name], "cpu"))
    milliseconds = {name: quartiles([1e3 * s for s in found[2:]]) for name, found in seconds.items()}
    medians = {name: statistics.median(found[2:]) for name, found in seconds.items()}
    return {
        "size": str(size),
        "threads": threads,
        "runs": RUNS,
        "load": os.getloadavg()[0],
        **milliseconds,
        "ratio": {region: medians[region] / medians["gradient"] for region in MODELS},
        # A gradient is three passes of products, one forward and two backward.
        "flops": {region: flops[region] / (3 * flops["value"]) for region in MODELS},
    }


def peak(size: Size, region: str) -> dict[str, object]:
    """Bytes at the highest point of one call."""
    _, calls = _regions(size)
    for _ in range(2):
        calls[region]()
    return {"bytes": held(calls[region])}


def held(function: Callable[[], object]) -> int:
    """Bytes resident at the highest point of a call, beyond those before it."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = function()
    top = _status("VmHWM")
    del result
    return top - before


def _memory(size: Size, target: float) -> dict[str, Any]:
    found = {
        region: measure_alone(__file__, "peak", size, region, environment=ALLOCATOR)["bytes"] for region in REGIONS
    }
    return {
        "size": str(size),
        **found,
        "ratio": {region: found[region] / found["gradient"] for region in MODELS},
        "target": target,
    }


def _regions(size: Size) -> tuple[dict[str, int], dict[str, Callable[[], object]]]:
    """FLOPs, and a call of each."""
    exact, rough = _planned(size, "exact"), _planned(size, "difference")
    program, roughly = make_program(exact), make_program(rough)
    anchor, generator = program.initial(), torch.Generator().manual_seed(0)
    params = {name: w + 0.01 * torch.randn(w.shape, generator=generator) for name, w in anchor.items()}
    tokens = torch.randint(size.vocabulary, (size.rows, size.context + 1), generator=generator)
    flops = {name: region.flops for name, region in exact.regions.items()}
    return flops | {"difference": rough.regions["curved"].flops}, {
        "curved": lambda: program.objective.curved(params, anchor, tokens),
        "difference": lambda: roughly.objective.curved(params, anchor, tokens),
        "gradient": lambda: program.objective.gradient(anchor, tokens),
    }


def _planned(size: Size, tangent: str) -> Plan:
    tree = {
        "name": "curved",
        "model": {"kind": "decoder", "layers": size.layers, "width": size.width, "heads": 4},
        "data": {"tokenizer": {"kind": "bpe", "vocabulary": size.vocabulary}, "context": size.context},
        "optimizer": {"kind": "gauss_newton", "tangent": tangent},
        "training": {"steps": 1, "rows": size.rows, "device": "cpu"},
    }
    return plan(Experiment.model_validate(tree), "plain")


def _status(name: str) -> int:
    """Bytes of one line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def report(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    about = result["machine"]
    lines = [
        "# curved and gradient",
        "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}. All compiled, float32, "
        "plain attention.",
        "",
        "## Time",
        "",
        "Milliseconds: median, and quartiles in brackets, of interleaved calls in one process; the load of the machine "
        "(of all its processes) after them. `curved` takes five products where `gradient` takes three, 1.67 times as "
        "many, and with a difference for the tangent four, 1.33 times as many.",
        "",
        *_table(
            f"size | threads | load | runs | {COLUMNS} | aimed at",
            map(_timed, result["time"]),
        ),
        "",
        "## Peak memory",
        "",
        "MiB beyond the arguments, each in a process of its own.",
        "",
        *_table(
            f"size | {COLUMNS} | aimed at",
            map(_held, result["memory"]),
        ),
    ]
    return "\n".join(lines) + "\n"


def _timed(row: dict[str, Any]) -> str:
    found = [f"{middle:.0f} ({low:.0f} to {high:.0f})" for low, middle, high in map(row.get, REGIONS)]
    return _joined(row["size"], row["threads"], f"{row['load']:.1f}", row["runs"], *found, *_ratios(row), row["target"])


def _held(row: dict[str, Any]) -> str:
    return _joined(row["size"], *(f"{row[name] / 2**20:.0f}" for name in REGIONS), *_ratios(row), row["target"])


def _ratios(row: dict[str, Any]) -> list[str]:
    return [f"{row['ratio'][region]:.2f}" for region in MODELS]


def _joined(*cells: object) -> str:
    return " | ".join(map(str, cells))


def _table(head: str, rows: Iterable[str]) -> list[str]:
    return [f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows)]


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        name, size, argument = sys.argv[1:]
        of = Size(*json.loads(size))
        print(json.dumps(times(of, int(argument)) if name == "times" else peak(of, argument)))
