"""Time of the passes of Gauss-Newton in float32 and in bfloat16; writes precision.json and precision.md.

All regions are compiled, with plain attention, the same weights and the same tokens, on one thread. Their calls are
interleaved in one process, which keeps the memory that it frees, and take time of the processor. Errors are those of
the gradient of the convex model, at a displacement of a tenth of the spread of each matrix. Linux only.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from curved import SMALL, Size  # noqa: E402  # a script's neighbour
from measure import machine, quartiles  # noqa: E402

from gnflow import trees  # noqa: E402
from gnflow.compiler.plan import plan  # noqa: E402
from gnflow.compiler.program import Program  # noqa: E402
from gnflow.compiler.program import compile as make_program  # noqa: E402
from gnflow.objective import Params  # noqa: E402
from gnflow.spec.experiment import Experiment  # noqa: E402
from gnflow.train.allocator import keep_memory  # noqa: E402

RUNS, TARGET = 25, 0.5
FORMS = {"float32": ("float32", "exact"), "difference": ("float32", "difference"), "bfloat16": ("bfloat16", "exact")}
COLUMNS = (
    "gradient float32", "curved float32", "curved difference", "gradient bfloat16", "curved bfloat16",
    "product float32", "product bfloat16", "value",
)  # fmt: skip


def main(folder: Path = HERE) -> None:
    """Measure in a fresh process, and write the report."""
    done = subprocess.run([sys.executable, __file__, "measure"], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = {"machine": machine(), **json.loads(done.stdout)}
    (folder / "precision.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "precision.md").write_text(report(result))
    print(report(result))


def measure(size: Size = SMALL) -> dict[str, object]:
    """Return milliseconds (quartiles) of each region, ratios of their medians, and errors of bfloat16."""
    keep_memory()
    torch.set_num_threads(1)
    programs = {name: _make(size, *form) for name, form in FORMS.items()}
    anchor, generator = programs["float32"].initial(), torch.Generator().manual_seed(0)
    spread = {name: w.std() if w.ndim > 1 else torch.tensor(0.1) for name, w in anchor.items()}
    params = {name: w + 0.1 * spread[name] * torch.randn(w.shape, generator=generator) for name, w in anchor.items()}
    along = trees.subtract(params, anchor)
    tokens = torch.randint(size.vocabulary, (size.rows, size.context + 1), generator=generator)
    calls: dict[str, Callable[[], Any]] = {}
    for name, program in programs.items():
        objective = program.objective
        calls[f"curved {name}"] = lambda objective=objective: objective.curved(params, anchor, tokens)
        if name != "difference":
            calls[f"gradient {name}"] = lambda objective=objective: objective.gradient(anchor, tokens)
            calls[f"product {name}"] = lambda objective=objective: objective.product(along, anchor, tokens)
    model = programs["float32"].objective.build_model(anchor)
    calls["value"] = lambda: model.value(params, tokens)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(RUNS + 2):
        for name in calls if i % 2 else reversed(calls):
            start = time.process_time()
            calls[name]()
            found[name].append(1e3 * (time.process_time() - start))
    middle = {name: statistics.median(each[2:]) for name, each in found.items()}
    pairs = {
        "curved, bfloat16 : float32": ("curved bfloat16", "curved float32"),
        "product, bfloat16 : float32": ("product bfloat16", "product float32"),
        "gradient, bfloat16 : float32": ("gradient bfloat16", "gradient float32"),
        "curved : gradient, float32": ("curved float32", "gradient float32"),
        "curved by difference : gradient, float32": ("curved difference", "gradient float32"),
        "curved : gradient, bfloat16": ("curved bfloat16", "gradient bfloat16"),
        "value of the model alone : curved, float32": ("value", "curved float32"),
    }
    results = {name: call() for name, call in calls.items()}
    return {
        "size": str(size), "runs": RUNS, "load": os.getloadavg()[0],
        "milliseconds": {name: quartiles(found[name][2:]) for name in COLUMNS},
        "ratio": {what: middle[one] / middle[two] for what, (one, two) in pairs.items()},
        "error": {
            "gradient": _compare(results["gradient bfloat16"][0], results["gradient float32"][0]),
            "curved": _compare(results["curved bfloat16"][0], results["curved float32"][0]),
            "product": _compare(results["product bfloat16"], results["product float32"]),
        },
    }  # fmt: skip


def report(result: dict[str, Any]) -> str:
    """Write the results in Markdown."""
    about = result["machine"]
    lines = [
        "# Gauss-Newton in float32 and in bfloat16", "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}. {result['size']}, compiled, "
        f"one thread, medians (and quartiles) of {result['runs']} interleaved calls, load {result['load']:.1f}. "
        f"`curved` in bfloat16 should take at most {TARGET} of its time in float32.", "",
        "| region | ms of the processor |", "|---|---|",
        *(f"| {name} | {m:.0f} ({low:.0f} to {high:.0f}) |" for name, (low, m, high) in result["milliseconds"].items()),
        "", "| ratio | found |", "|---|---|", *(f"| {what} | {ratio:.2f} |" for what, ratio in result["ratio"].items()),
        "", "| relative error of bfloat16 | norm |", "|---|---|",
        *(f"| {what} | {error:.4f} |" for what, error in result["error"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _compare(found: Params, expected: Params) -> float:
    return (trees.norm(trees.subtract(found, expected)) / trees.norm(expected)).item()


def _make(size: Size, precision: str, tangent: str) -> Program:
    tree = {
        "name": "precision",
        "model": {"kind": "decoder", "layers": size.layers, "width": size.width, "heads": 4},
        "data": {"tokenizer": {"kind": "bpe", "vocabulary": size.vocabulary}, "context": size.context},
        "optimizer": {"kind": "gauss_newton", "tangent": tangent},
        "training": {"steps": 1, "rows": size.rows, "device": "cpu", "precision": precision},
    }
    return make_program(plan(Experiment.model_validate(tree), "plain"))


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        main()
