"""Trajectories of tiny runs, one for each kind of optimizer, as they were when somebody last looked.

    python tests/golden.py      rewrites tests/golden.json: to be done, and explained, when a change of numbers is meant

Of every weight after every step there are its norm and its product with a fixed vector, which other processors reach
within rounding; of the whole state a digest of its bits, which only the processor that wrote it has to reach again.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tiny
import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as make_program
from gnflow.data.prepare import prepare
from gnflow.spec.experiment import Experiment
from gnflow.train.provenance import find_processor
from gnflow.train.reproducible import make_reproducible
from gnflow.workspace import Workspace

FILE = Path(__file__).with_suffix(".json")
STEPS = 4
# Parts of a weight's norm. Measured on one processor, AVX512 against AVX2 and SSE4: at most 2e-5, and 5.5e-4 with SOAP,
# whose eigenvectors turn freely where eigenvalues are nearly equal.
TOLERANCE, TOLERANCE_IN_A_BASIS = 1e-4, 5e-3
OTHERS = {"others": {"kind": "adamw", "learning_rate": 0.01}, "microbatches": 4}
SEARCH = {"kind": "geometric", "trials": 3, "microbatches": 2}
# With the default eps the directions in which a tiny gradient is nothing but rounding are blown up to full steps.
BASIS = {"learning_rate": 0.1, "eps": 0.1, "precondition_frequency": 2}
OPTIMIZERS: dict[str, dict[str, object]] = {
    "adamw": {"kind": "adamw", "learning_rate": 0.01, "microbatches": 2},
    "muon": {"kind": "muon", "learning_rate": 0.01, **OTHERS},
    "rmnp": {"kind": "rmnp", "learning_rate": 0.01, **OTHERS},
    "soap": {"kind": "soap", **BASIS, **OTHERS},
    "lion": {"kind": "lion", "learning_rate": 0.001, "microbatches": 4},
    "normuon": {"kind": "normuon", "learning_rate": 0.01, **OTHERS},
    "kl_soap": {"kind": "kl_soap", **BASIS, **OTHERS},
    "soap_muon": {"kind": "soap_muon", **BASIS, **OTHERS},
    "kfac": {"kind": "kfac", "learning_rate": 0.01, "estimate_every": 2, **OTHERS},
    "newton_muon": {"kind": "newton_muon", "learning_rate": 0.01, **OTHERS},
    "sophia": {"kind": "sophia", "learning_rate": 0.003, "estimate_every": 2, "microbatches": 2},
    "fop_soap": {"kind": "fop_soap", **BASIS, **OTHERS},
    "ml_fop_soap": {"kind": "ml_fop_soap", "leaves": 4, **BASIS, **OTHERS},
    "gauss_newton": {"kind": "gauss_newton", "inner": "muon", "inner_steps": 3, "search": SEARCH},
    "layerwise": {"kind": "gauss_newton", "blocks": "layer", "inner": "adamw", "inner_steps": 3, "search": SEARCH},
    "prox_linear": {
        "kind": "gauss_newton", "objective": "prox_linear", "inner": "adamw", "inner_steps": 3, "search": SEARCH,
    },
}  # fmt: skip


class Moment(NamedTuple):
    """What is remembered of the state after a step."""

    weights: Mapping[str, tuple[float, float]]
    """Norm, and product with a fixed vector."""
    digest: str


def trajectory(name: str, root: Path) -> list[Moment]:
    """The states after 0, 1, ... STEPS steps."""
    tree = tiny.tiny(steps=STEPS) | {"optimizer": OPTIMIZERS[name]}
    workspace, planned = Workspace(tiny.write_project(root)), plan(Experiment.model_validate(tree))
    with make_reproducible(workspace):
        program = make_program(planned)
        batches = prepare(planned.experiment.data, workspace).make_microbatches(4, seed=0)
        state = program.init(program.initial())
        moments = [moment(state.params, state.optimizer)]
        for step in range(STEPS):
            state, _ = program.step(state, batches.take(step * planned.microbatches, planned.microbatches))
            moments.append(moment(state.params, state.optimizer))
    return moments


def moment(params: Mapping[str, Tensor], optimizer: object) -> Moment:
    bits = hashlib.sha256()
    for name, tensor in trees.name_tensors((params, optimizer)).items():
        bits.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return Moment({name: sketch(weight) for name, weight in params.items()}, bits.hexdigest()[:16])


def sketch(weight: Tensor) -> tuple[float, float]:
    values = weight.double().flatten()
    fixed = torch.arange(len(values), dtype=torch.float64).cos()
    return values.norm().item(), (values @ fixed).item()


def drift(name: str, found: list[Moment], golden: Mapping[str, object]) -> str | None:
    """The first step and weight that differ; the first state, where only its bits do and this processor had them."""
    tolerance = TOLERANCE_IN_A_BASIS if "soap" in name else TOLERANCE
    there = golden[name]
    assert isinstance(there, dict)
    for step, (now, before) in enumerate(zip(found, there["weights"], strict=True)):
        for weight, (norm, product) in now.weights.items():
            for what, value, wanted in (("norm", norm, before[weight][0]), ("product", product, before[weight][1])):
                if abs(value - wanted) > tolerance * max(before[weight][0], 1e-6):
                    return f"{name}, step {step}: the {what} of `{weight}` is {value!r}, was {wanted!r}"
    for step, (now, bits) in enumerate(zip(found, there["bits"].get(machine(), []), strict=False)):
        if now.digest != bits:
            return f"{name}, step {step}: the bits of the state differ, though its values are within rounding"
    return None


def machine() -> str:
    """What the bits depend on besides the code."""
    return f"torch {torch.__version__.partition('+')[0]}, {torch.backends.cpu.get_cpu_capability()}, {find_processor()}"


def load() -> dict[str, object]:
    """The stored trajectories."""
    stored: dict[str, object] = json.loads(FILE.read_text())
    return stored


def _written() -> Iterator[tuple[str, object]]:
    for name in OPTIMIZERS:
        with tempfile.TemporaryDirectory() as root:
            moments = trajectory(name, Path(root))
        yield (
            name,
            {
                "weights": [
                    {weight: [float(f"{number:.9g}") for number in numbers] for weight, numbers in one.weights.items()}
                    for one in moments
                ],
                "bits": {machine(): [one.digest for one in moments]},
            },
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps(dict(_written()), indent=1).replace(",\n     ", ", ") + "\n")
