"""Time of the passes of Gauss-Newton in float32 and in bfloat16; writes precision.json and precision.md.

Each size has a process of its own, which keeps the memory that it frees. All regions are compiled, with plain
attention, the same weights and the same tokens, on one thread. Their calls are interleaved and take time of the
processor. `curved float32, own` multiplies with MKL, as torch does by itself; it differs from `curved float32` on
processors of AMD (docs/decisions.md, 112). Errors are those of the gradient of the convex model, at a displacement of a
tenth of the spread of each matrix. All takes about six minutes. Linux only.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from alone import measure_alone  # noqa: E402  # a script's neighbour
from curved import SMALL, Size  # noqa: E402
from measure import machine, quartiles  # noqa: E402

from gnflow import trees  # noqa: E402
from gnflow.compiler import products  # noqa: E402
from gnflow.compiler.plan import plan  # noqa: E402
from gnflow.compiler.program import Program  # noqa: E402
from gnflow.compiler.program import compile as make_program  # noqa: E402
from gnflow.objective import Params  # noqa: E402
from gnflow.spec.experiment import Experiment  # noqa: E402
from gnflow.train.allocator import keep_memory  # noqa: E402

RUNS, TARGET = 25, 0.5
SIZES = (SMALL, SMALL._replace(width=512))
FORMS = {"float32": ("float32", "exact"), "difference": ("float32", "difference"), "bfloat16": ("bfloat16", "exact")}
COLUMNS = (
    "gradient float32", "curved float32", "curved float32, own", "curved difference",
    "gradient bfloat16", "curved bfloat16", "product float32", "product bfloat16", "value",
)  # fmt: skip


def main(folder: Path = HERE) -> None:
    """Measure each size in a fresh process, and write the report."""
    result: dict[str, Any] = {"machine": machine(), "sizes": [measure_alone(__file__, size) for size in SIZES]}
    (folder / "precision.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "precision.md").write_text(report(result))
    print(report(result))


def measure(size: Size) -> dict[str, object]:
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
    own = _make(size, *FORMS["float32"]).objective
    with patch.object(products, "prefers_onednn", return_value=False):  # asked by what compiles, in the first call
        own.curved(params, anchor, tokens)
    calls["curved float32, own"] = lambda: own.curved(params, anchor, tokens)
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
        "curved, bfloat16 : float32 with torch's own products": ("curved bfloat16", "curved float32, own"),
        "product, bfloat16 : float32": ("product bfloat16", "product float32"),
        "gradient, bfloat16 : float32": ("gradient bfloat16", "gradient float32"),
        "curved : gradient, float32": ("curved float32", "gradient float32"),
        "curved by difference : gradient, float32": ("curved difference", "gradient float32"),
        "curved : gradient, bfloat16": ("curved bfloat16", "gradient bfloat16"),
        "value of the model alone : curved, float32": ("value", "curved float32"),
    }
    results = {name: call() for name, call in calls.items()}
    return {
        "size": str(size), "load": os.getloadavg()[0],
        "milliseconds": {name: quartiles(found[name][2:]) for name in COLUMNS},
        "ratio": {what: middle[one] / middle[two] for what, (one, two) in pairs.items()},
        "error": {
            "gradient": _compare(results["gradient bfloat16"][0], results["gradient float32"][0]),
            "curved": _compare(results["curved bfloat16"][0], results["curved float32"][0]),
            "product": _compare(results["product bfloat16"], results["product float32"]),
        },
    }  # fmt: skip


def report(result: dict[str, Any]) -> str:
    """Write the results in Markdown, with a column for each size."""
    about, sizes = result["machine"], result["sizes"]

    def write_rows(key: str, form: Callable[[Any], str]) -> list[str]:
        return [f"| {name} | {' | '.join(form(each[key][name]) for each in sizes)} |" for name in sizes[0][key]]

    names, line = " | ".join(each["size"] for each in sizes), "|---" * (1 + len(sizes)) + "|"
    loads = " and ".join(f"{each['load']:.1f}" for each in sizes)
    lines = [
        "# Gauss-Newton in float32 and in bfloat16", "",
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}. Compiled, one thread, "
        f"medians (and quartiles) of {RUNS} interleaved calls, load {loads}. "
        f"`curved` in bfloat16 should take at most {TARGET} of its time in float32.", "",
        f"| ms of the processor | {names} |", line,
        *write_rows("milliseconds", lambda each: f"{each[1]:.0f} ({each[0]:.0f} to {each[2]:.0f})"),
        "", f"| ratio | {names} |", line, *write_rows("ratio", lambda each: f"{each:.3f}"),
        "", f"| relative error of bfloat16, by the norm | {names} |", line,
        *write_rows("error", lambda each: f"{each:.4f}"),
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
    if len(sys.argv) > 1:
        print(json.dumps(measure(Size(*json.loads(sys.argv[1])))))
    else:
        main()
