"""Compile the stage or compile the model: seconds of compilation, time of a call, memory. Writes stages.json and .md.

The model as one graph is what gnflow compiled before; it is here as the other side of the comparison. Every measurement
has a process of its own. Compilation starts with nothing cached and is measured in seconds of the processor, those of
the C++ compiler included, since the machine may be shared. Before it a trivial function is compiled, which takes the
time that every process needs once. Calls are interleaved. Memory is measured as in curved.py. Linux only.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from curved import ALLOCATOR, KEPT, held  # noqa: E402  # a script's neighbour
from measure import machine, quartiles  # noqa: E402

from gnflow.compiler.regions import Compiler  # noqa: E402
from gnflow.curvature.linearised import BENDS, SURROGATES, linearise  # noqa: E402
from gnflow.curvature.staged import build_objective  # noqa: E402
from gnflow.models.decoder import build_decoder  # noqa: E402
from gnflow.models.loss import compute_cross_entropy  # noqa: E402
from gnflow.objective import Params, Scalar, Tokens  # noqa: E402
from gnflow.spec.model import Decoder  # noqa: E402

RUNS, THREADS, REGIONS, KINDS = 15, (1, 2), ("gradient", "curved"), ("stages", "whole")
Calls = dict[str, Callable[[], object]]


class Size(NamedTuple):
    """A decoder with 4 heads, and its micro-batch."""

    layers: int
    width: int
    vocabulary: int = 2048
    rows: int = 8
    context: int = 128

    def __str__(self) -> str:
        return f"{self.layers} x {self.width}, {self.vocabulary} words, {self.rows} x {self.context} tokens"


COMPILED = [Size(layers, 64) for layers in (2, 6, 12, 24, 48)]
COMPARED = Size(3, 256)
TIMED = [Size(4, 256), Size(12, 64)]


def main(folder: Path = HERE) -> None:
    """Make every measurement in turn."""
    result = {
        "machine": machine(),
        "runs": RUNS,
        "compile": [
            *(_measure_alone("compilation", size, "stages") for size in COMPILED),
            *(_measure_alone("compilation", COMPARED, kind) for kind in KINDS),
        ],
        "time": [_measure_alone("times", size, threads) for size in TIMED for threads in THREADS],
        "memory": [
            _measure_alone("memory", size, f"{kind}.{region}") for size in TIMED for region in REGIONS for kind in KINDS
        ],
    }
    (folder / "stages.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "stages.md").write_text(report(result))


def compilation(size: Size, kind: str) -> dict[str, object]:
    """Measure the seconds of the first calls of `gradient` and `curved`."""
    torch.set_num_threads(1)
    torch.compile(lambda x: x.cos() + 1)(torch.ones(3))
    seconds = {}
    for name, call in _make_calls(size, kind).items():
        start, since = _processor_seconds(), time.perf_counter()
        call()
        seconds[name] = (_processor_seconds() - start, time.perf_counter() - since)
    return {
        "size": str(size), "kind": kind, "load": os.getloadavg()[0],
        **{name: processor for name, (processor, _) in seconds.items()},
        "both": sum(processor for processor, _ in seconds.values()),
        "wall": sum(wall for _, wall in seconds.values()),
    }  # fmt: skip


def times(size: Size, threads: int) -> dict[str, object]:
    """Measure interleaved calls in milliseconds, of the processor on one thread and by the clock on two."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    calls = {(kind, name): call for kind in KINDS for name, call in _make_calls(size, kind).items()}
    found: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for i in range(RUNS + 2):
        for key in calls if i % 2 else reversed(calls):
            start = clock()
            calls[key]()
            found[key].append(1e3 * (clock() - start))
    middle = {key: statistics.median(each[2:]) for key, each in found.items()}
    return {
        "size": str(size), "threads": threads, "load": os.getloadavg()[0],
        "milliseconds": {f"{kind}.{name}": quartiles(each[2:]) for (kind, name), each in found.items()},
        "ratio": {name: middle["stages", name] / middle["whole", name] for name in REGIONS},
    }  # fmt: skip


def memory(size: Size, what: str) -> dict[str, object]:
    """Measure the bytes at the highest point of one call."""
    torch.set_num_threads(1)
    kind, name = what.split(".")
    call = _make_calls(size, kind)[name]
    for _ in range(2):
        call()
    return {"size": str(size), "what": what, "bytes": held(call)}


def _make_calls(size: Size, kind: str) -> Calls:
    """Make a call of each region."""
    spec = Decoder.model_validate({"layers": size.layers, "width": size.width, "heads": 4})
    model = build_decoder(spec, size.vocabulary, "plain")
    generator = torch.Generator().manual_seed(0)
    anchor = model.init(0)
    params = {name: w + 0.01 * torch.randn(w.shape, generator=generator) for name, w in anchor.items()}
    tokens = torch.randint(size.vocabulary, (size.rows, size.context + 1), generator=generator)
    compiler = Compiler("default", fullgraph=True)
    if kind == "stages":
        staged = build_objective(model, SURROGATES["quadratic"], BENDS["quadratic"])
        gradient, curved = compiler("gradient", staged.gradient), compiler("curved", staged.curved)
    else:

        def take_gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
            inputs, targets = model.split(tokens)
            return torch.func.grad_and_value(lambda p: compute_cross_entropy(model.compute_logits(p, inputs), targets))(
                params
            )

        gradient = compiler("gradient", take_gradient)
        curved = compiler("curved", linearise(model.compute_logits, SURROGATES["quadratic"]))
    return {"gradient": lambda: gradient(params, tokens), "curved": lambda: curved(params, anchor, tokens)}


def _processor_seconds() -> float:
    """Add up the seconds of the processor that this process and its finished children took."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _measure_alone(function: str, size: Size, argument: int | str) -> dict[str, Any]:
    """Run `function(size, argument)` in a fresh process with no compiled graphs."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, **(ALLOCATOR if function == "memory" else KEPT)}
        environment |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, __file__, function, json.dumps(size), str(argument)],
            env=environment, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    print(function, size, argument, done.stdout.strip(), flush=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def report(result: dict[str, Any]) -> str:
    """Write the results in Markdown."""
    about = result["machine"]
    lines = [
        "# Stages and whole graphs", "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}. Plain attention, float32.",
        "",
        "## Compilation with nothing cached", "",
        "Seconds of the processor for the first calls, and of the clock in the last column.", "",
        "| size | compiled | gradient | curved | both | load | wall |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["compile"]:
        figures = " | ".join(f"{row[key]:.1f}" for key in ("gradient", "curved", "both", "load", "wall"))
        lines.append(f"| {row['size']} | {row['kind']} | {figures} |")
    lines += [
        "", "## Time of a call", "",
        f"Milliseconds: medians of {result['runs']} interleaved calls in one process, of the processor on one thread "
        "and by the clock on two. At most 1.02 is aimed at.", "",
        "| size | threads | gradient | whole | ratio | curved | whole | ratio | load |", "|---" * 9 + "|",
    ]  # fmt: skip
    for row in result["time"]:
        cells = []
        for name in REGIONS:
            cells += [f"{row['milliseconds'][f'{kind}.{name}'][1]:.1f}" for kind in KINDS]
            cells += [f"{row['ratio'][name]:.3f}"]
        lines.append(f"| {row['size']} | {row['threads']} | {' | '.join(cells)} | {row['load']:.1f} |")
    lines += ["", "## Peak memory beyond the arguments", "", "| size | region | MiB |", "|---|---|---|"]
    lines += [f"| {row['size']} | {row['what']} | {row['bytes'] / 2**20:.0f} |" for row in result["memory"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        name, shape, argument = sys.argv[1:]
        of = Size(*json.loads(shape))
        functions: dict[str, Callable[[], object]] = {
            "compilation": lambda: compilation(of, argument),
            "times": lambda: times(of, int(argument)),
            "memory": lambda: memory(of, argument),
        }
        print(json.dumps(functions[name]()))
