"""Compile the stage or compile the model: seconds of compilation, time of a call, memory. Writes stages.json and .md.

The model as one graph is what gnflow compiled before; it is here as the other side of the comparison. Seconds of
compilation are also measured with a library for each kernel, which is how Inductor builds them. Every measurement has a
process of its own, and all are made in three rounds. Compilation starts with nothing cached and is measured in seconds
of the processor, those of the C++ compiler included. Before it a trivial function is compiled, which takes the time
that every process needs once. Two processes run at a time where no clock is read. Calls are interleaved. Memory is
measured as in curved.py. All takes about half an hour on two idle cores. Linux only.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from alone import measure_alone  # noqa: E402  # a script's neighbour
from curved import ALLOCATOR, held  # noqa: E402
from measure import machine, quartiles  # noqa: E402

from gnflow import trees  # noqa: E402
from gnflow.compiler.regions import Compiler  # noqa: E402
from gnflow.curvature.linearised import BENDS, SURROGATES  # noqa: E402
from gnflow.curvature.staged import build_objective  # noqa: E402
from gnflow.models.decoder import build_decoder  # noqa: E402
from gnflow.models.loss import compute_cross_entropy  # noqa: E402
from gnflow.models.model import Model  # noqa: E402
from gnflow.objective import Params, Scalar, Tokens  # noqa: E402
from gnflow.spec.model import Decoder  # noqa: E402
from gnflow.train.allocator import keep_memory  # noqa: E402

ROUNDS, RUNS, THREADS, REGIONS, KINDS = 3, 31, (1, 2), ("gradient", "curved"), ("stages", "whole")
FORMER = "whole, a library for each kernel"
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
    """Make every measurement, and print the report too."""
    cold = [*((size, "stages") for size in COMPILED), *((COMPARED, kind) for kind in (*KINDS, FORMER))]
    timed = [(size, threads) for size in TIMED for threads in THREADS]
    peaks = [(size, f"{kind}.{region}") for size in TIMED for region in REGIONS for kind in KINDS]
    with ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory() as cache:
        result = {
            "machine": machine(),
            "compile": merge(pool.map(lambda case: _measure_alone("compilation", *case), cold * ROUNDS), len(cold)),
            "time": merge((_measure_alone("times", *case, cache=cache) for case in timed * ROUNDS), len(timed)),
            # The calls have filled the cache, so no process compiles: what compilation leaves behind would be used.
            "memory": merge(
                pool.map(lambda case: _measure_alone("memory", *case, cache=cache), peaks * ROUNDS), len(peaks)
            ),
        }
    (folder / "stages.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "stages.md").write_text(report(result))
    print(report(result))


def merge(rows: Iterable[dict[str, Any]], cases: int) -> list[dict[str, Any]]:
    """Merge the rounds of each case: quartiles of all its measurements, the medians of each round, the highest load."""
    found = list(rows)
    merged = []
    for rounds in (found[place::cases] for place in range(cases)):
        measured = {name: [x for each in rounds for x in each["measured"][name]] for name in rounds[0]["measured"]}
        spread = {name: quartiles(values) for name, values in measured.items()}
        medians = {name: [statistics.median(each["measured"][name]) for each in rounds] for name in measured}
        load = max(each["load"] for each in rounds)
        merged.append(rounds[0] | {"measured": spread, "rounds": medians, "load": load})
    return merged


def compilation(size: Size, kind: str) -> dict[str, object]:
    """Measure the seconds of the first calls of `gradient` and `curved`."""
    torch.set_num_threads(1)
    torch.compile(lambda x: x.cos() + 1)(torch.ones(3))
    if kind == FORMER:
        from gnflow.compiler import libraries

        libraries.share_libraries = nullcontext
    seconds = {}
    for name, call in _make_calls(size, kind).items():
        start = _processor_seconds()
        call()
        seconds[name] = [_processor_seconds() - start]
    seconds["both"] = [sum(each for (each,) in seconds.values())]
    return {"size": str(size), "kind": kind, "load": os.getloadavg()[0], "measured": seconds}


def times(size: Size, threads: int) -> dict[str, object]:
    """Measure interleaved calls in milliseconds, of the processor on one thread and by the clock on two."""
    keep_memory()
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    calls = {(kind, name): call for kind in KINDS for name, call in _make_calls(size, kind).items()}
    found: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for i in range(RUNS + 2):
        for key in calls if i % 2 else reversed(calls):
            start = clock()
            calls[key]()
            found[key].append(1e3 * (clock() - start))
    measured = {f"{kind}.{name}": each[2:] for (kind, name), each in found.items()}
    return {"size": str(size), "threads": threads, "load": os.getloadavg()[0], "measured": measured}


def memory(size: Size, what: str) -> dict[str, object]:
    """Measure the bytes at the highest point of one call."""
    torch.set_num_threads(1)
    kind, name = what.split(".")
    call = _make_calls(size, kind)[name]
    for _ in range(2):
        call()
    return {"size": str(size), "what": what, "load": os.getloadavg()[0], "measured": {"bytes": [held(call)]}}


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
        gradient, curved = compiler("gradient", _make_gradient(model)), compiler("curved", _make_curved(model))
    return {"gradient": lambda: gradient(params, tokens), "curved": lambda: curved(params, anchor, tokens)}


def _make_gradient(model: Model) -> Callable[[Params, Tokens], tuple[Params, Scalar]]:
    """Make the gradient of the whole model as one function."""

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        inputs, targets = model.split(tokens)
        return torch.func.grad_and_value(lambda p: compute_cross_entropy(model.compute_logits(p, inputs), targets))(
            params
        )

    return gradient


def _make_curved(model: Model) -> Callable[[Params, Params, Tokens], tuple[Params, Scalar]]:
    """Make the quadratic model of the whole model as one function."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        inputs, targets = model.split(tokens)

        def push(point: Params) -> tuple[Tensor, Tensor]:
            displacement = trees.subtract(params, anchor)
            return torch.func.jvp(lambda p: model.compute_logits(p, inputs), (point,), (displacement,))

        logits, pullback, tangent = torch.func.vjp(push, anchor, has_aux=True)
        value, cotangent = SURROGATES["quadratic"](logits, tangent, targets)
        return pullback(cotangent)[0], value

    return curved


def _processor_seconds() -> float:
    """Add up the seconds of the processor that this process and its finished children took."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _measure_alone(function: str, size: Size, argument: int | str, cache: str | None = None) -> dict[str, Any]:
    """Run `function(size, argument)` in a fresh process with this cache of compiled graphs, or with an empty one."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {"TORCHINDUCTOR_CACHE_DIR": cache or empty, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        environment |= ALLOCATOR if function == "memory" else {}
        return measure_alone(__file__, function, size, argument, environment=environment)


def report(result: dict[str, Any]) -> str:
    """Write the results in Markdown."""
    about = result["machine"]
    lines = [
        "# Stages and whole graphs", "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}. Plain attention, float32.",
        "", "| aim | at most | found |", "|---|---|---|",
        *(f"| {what} | {limit} | {found:.3f} |" for what, limit, found in compare(result)),
        "",
        "## Compilation with nothing cached", "",
        f"Seconds of the processor for the first calls, medians of {ROUNDS} processes, made in turn.", "",
        "| size | compiled | gradient | curved | both | load |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["compile"]:
        figures = " | ".join(f"{_find_median(row, key):.1f}" for key in (*REGIONS, "both"))
        lines.append(f"| {row['size']} | {row['kind']} | {figures} | {row['load']:.1f} |")
    lines += [
        "", "## Time of a call", "",
        f"Milliseconds: medians of {RUNS} interleaved calls in each of {ROUNDS} processes, of the processor on one "
        "thread and by the clock on two. The ratio of each process is in brackets.", "",
        "| size | threads | gradient | whole | ratio | curved | whole | ratio | load |", "|---" * 9 + "|",
    ]  # fmt: skip
    for row in result["time"]:
        cells = []
        for name in REGIONS:
            cells += [f"{_find_median(row, f'{kind}.{name}'):.1f}" for kind in KINDS]
            ours, whole = (row["rounds"][f"{kind}.{name}"] for kind in KINDS)
            alone = ", ".join(f"{a / b:.2f}" for a, b in zip(ours, whole, strict=True))
            cells += [f"{_divide(row, name):.3f} ({alone})"]
        lines.append(f"| {row['size']} | {row['threads']} | {' | '.join(cells)} | {row['load']:.1f} |")
    lines += [
        "", "## Peak memory beyond the arguments", "",
        f"MiB: the median of {ROUNDS} processes, and each in brackets.", "",
        "| size | compiled and region | MiB |", "|---|---|---|",
    ]  # fmt: skip
    for row in result["memory"]:
        alone = ", ".join(f"{each / 2**20:.1f}" for each in row["rounds"]["bytes"])
        lines.append(f"| {row['size']} | {row['what']} | {_find_median(row, 'bytes') / 2**20:.1f} ({alone}) |")
    return "\n".join(lines) + "\n"


def compare(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return (what, at most, found) for everything that was aimed at."""
    seconds = {(row["size"], row["kind"]): _find_median(row, "both") for row in result["compile"]}
    depths = [seconds[str(size), "stages"] for size in COMPILED]
    stages, former = (seconds[str(COMPARED), kind] for kind in ("stages", FORMER))
    peaks = {(row["size"], row["what"]): _find_median(row, "bytes") for row in result["memory"]}

    def divide_peaks(size: Size, name: str) -> float:
        return peaks[str(size), f"stages.{name}"] / peaks[str(size), f"whole.{name}"]

    return [
        ("seconds of compilation at 2 to 48 layers, the most by the least", 1.3, max(depths) / min(depths)),
        (f"seconds of compilation at {COMPARED.layers} layers, by those of {FORMER}", 0.5, stages / former),
        *(
            (f"time of `{name}` at {row['size']} on {row['threads']} threads", 1.02, _divide(row, name))
            for row in result["time"] for name in REGIONS
        ),
        *(
            (f"memory of `{name}` at {size}", 1.0, divide_peaks(size, name))
            for size in TIMED for name in REGIONS
        ),
    ]  # fmt: skip


def _find_median(row: dict[str, Any], name: str) -> float:
    middle: float = row["measured"][name][1]
    return middle


def _divide(row: dict[str, Any], name: str) -> float:
    return _find_median(row, f"stages.{name}") / _find_median(row, f"whole.{name}")


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
