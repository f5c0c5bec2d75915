"""What the processes of a crew are asked to do in tests."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
import torch.distributed as dist
from crews import Crews
from golden import BASIS, OTHERS
from torch import Tensor
from torch.distributed._functional_collectives import all_gather_tensor

from gnflow import trees
from gnflow.compiler.devices import share_out
from gnflow.compiler.plan import Plan, plan
from gnflow.compiler.program import State
from gnflow.compiler.program import compile as make_program
from gnflow.compiler.storages import count_bytes
from gnflow.crew import Crew
from gnflow.data.digests import hash_file
from gnflow.errors import DiskProblem, GnflowError, SpecError
from gnflow.exchange import Processes
from gnflow.spec.experiment import Experiment
from gnflow.train import checkpoint
from gnflow.train.agreement import require_same
from gnflow.train.reproducible import make_reproducible
from gnflow.workspace import Workspace

SEARCH = {"kind": "geometric", "trials": 2, "microbatches": 4}
GAUSS_NEWTON = {"kind": "gauss_newton", "inner_steps": 2, "search": SEARCH}
SOLVERS: dict[str, dict[str, object]] = {
    "muon": {"kind": "muon", **OTHERS},
    "adamw": {"kind": "adamw", "microbatches": 4},
    "soap": {"kind": "soap", **BASIS, **OTHERS},
    "cg": {"kind": "cg", "iterations": 3, "microbatches": 4},
}
OPTIMIZERS: dict[str, dict[str, object]] = {
    **{name: solver for name, solver in SOLVERS.items() if name != "cg"},
    **{kind: {"kind": kind, **OTHERS} for kind in ("rmnp", "normuon")},
    **{kind: {"kind": kind, **BASIS, **OTHERS} for kind in ("kl_soap", "soap_muon")},
    "lion": {"kind": "lion", "microbatches": 4},
    "sophia": {"kind": "sophia", "estimate_every": 2, "microbatches": 4},
    "kfac": {"kind": "kfac", "form": "corrected", "estimate_every": 1, **OTHERS},
    "gauss_newton kfac": {**GAUSS_NEWTON, "inner": {"kind": "kfac", "estimate_every": 1, **OTHERS}},
    "gauss_newton cg ekfac": {
        **GAUSS_NEWTON, "inner": {"kind": "cg", "iterations": 2, "microbatches": 4, "preconditioner": "ekfac"},
    },
    "fop_soap": {"kind": "fop_soap", **BASIS, **OTHERS},
    "ml_fop_soap": {"kind": "ml_fop_soap", "leaves": 2, **BASIS, **OTHERS, "microbatches": 8},
    **{f"gauss_newton {name}": {**GAUSS_NEWTON, "inner": solver} for name, solver in SOLVERS.items()},
    "gauss_newton, no search": {**GAUSS_NEWTON, "inner": SOLVERS["muon"], "search": "none"},
    "gauss_newton, decrement": {**GAUSS_NEWTON, "inner": SOLVERS["adamw"], "search": "decrement"},
    "gauss_newton, damped mean": {
        **GAUSS_NEWTON, "inner": SOLVERS["adamw"], "damping": 0.1, "average": 1.0,
    },
    "layerwise muon": {**GAUSS_NEWTON, "blocks": "layer", "inner": "muon"},
    "layerwise cg": {**GAUSS_NEWTON, "blocks": "layer", "inner": {"kind": "cg", "iterations": 2}},
    "layerwise, mean": {
        **GAUSS_NEWTON, "blocks": "layer", "inner": SOLVERS["soap"], "average": 1.0,
    },
}  # fmt: skip
BY_PART: dict[str, dict[str, object]] = {
    f"{name}, by part": {**OPTIMIZERS[name], **clip}
    for name, clip in {
        "muon": {"clip": 0.5}, "soap": {}, "normuon": {}, "gauss_newton soap": {}, "layerwise, mean": {},
    }.items()
}  # fmt: skip


def small(optimizer: Mapping[str, object], shares: int = 4, **compiling: object) -> Experiment:
    """A model that takes milliseconds."""
    return Experiment.model_validate(
        {
            "name": "small",
            "model": {
                "kind": "decoder",
                "layers": 2 if optimizer.get("blocks") == "layer" else 1,
                "width": 8,
                "heads": 2,
            },
            "data": {"source": {"kind": "files", "paths": ["text.txt"]}, "tokenizer": "bytes", "context": 8},
            "optimizer": optimizer,
            "training": {"steps": 2, "rows": 1, "device": "cpu", "shares": shares, "start": "scratch"},
            "metrics": [],
            "compile": {"mode": "off", **compiling},
            "tracking": "none",
        }
    )


def bits(*trees_: object) -> str:
    digest = hashlib.sha256()
    for name, tensor in trees.name_tensors(trees_).items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


Work: TypeAlias = "Callable[[Crews], dict[str, dict[str, object]]]"


def compiled_digests() -> Work:
    """The same of compiled methods, which take minutes."""
    names = ("muon", "soap", "gauss_newton muon", "layerwise muon")
    plans = {name: plan(small(OPTIMIZERS[name], mode="default")) for name in names}
    by_part = {f"{name}, by part": OPTIMIZERS[name] for name in ("muon", "gauss_newton soap")}
    plans |= {name: plan(small(each, mode="default", update="parts")) for name, each in by_part.items()}
    return lambda crews: {
        name: {size: found for size, found, _ in _trained(planned, crews)} for name, planned in plans.items()
    }


def digests(optimizers: Mapping[str, dict[str, object]] = OPTIMIZERS) -> Work:
    """For each optimizer, by number of processes: the bits of weights and state after two steps, and metrics.

    Then the bytes that each process has sent in a step, and those that the plan says.
    """
    plans = {name: plan(small(optimizer)) for name, optimizer in optimizers.items()}
    by_part = {name: each for name, each in BY_PART.items() if name.removesuffix(", by part") in optimizers}
    plans |= {name: plan(small(optimizer, update="parts")) for name, optimizer in by_part.items()}

    def train(crews: Crews) -> dict[str, dict[str, object]]:
        return {
            name: {size: (found, sent, _planned(planned, int(size))) for size, found, sent in _trained(planned, crews)}
            for name, planned in plans.items()
        }

    return train


def _planned(planned: Plan, size: int) -> list[list[int]] | None:
    try:
        return [[part.sent] for part in share_out(planned, size)]
    except SpecError:  # a leaf of fop_soap has two micro-batches
        return None


def _sent(crew: Crew) -> int:
    return crew.count.sent if isinstance(crew, Processes) else 0


def _trained(
    planned: Plan, crews: Crews, sizes: tuple[int, ...] = (1, 2, 3, 4)
) -> Iterator[tuple[str, object, object]]:
    for size in sizes:
        crew = crews(size)
        if crew is None:
            continue
        with make_reproducible(Workspace(Path(tempfile.gettempdir()))):
            program = make_program(planned, crew=crew)
            state = program.init()
            for step in range(2):
                drawn = torch.Generator().manual_seed(step)
                tokens = torch.randint(256, (planned.microbatches, 1, 9), generator=drawn)
                before = _sent(crew)
                state, metrics = program.step(state, tokens)
                sent = crew.collect([_sent(crew) - before])
            state = program.whole(state)
        values = {key: value.item() for key, value in metrics.items()}
        yield str(size), [bits(state.params), bits(state.optimizer), values], sent


def some_digests() -> Work:
    """The same of one method of each kind."""
    names = (
        "muon",
        "soap",
        "sophia",
        "gauss_newton cg ekfac",
        "ml_fop_soap",
        "gauss_newton, decrement",
        "layerwise cg",
        "layerwise, mean",
    )
    return digests({name: OPTIMIZERS[name] for name in names})


def handed_over() -> Callable[[Crews], dict[str, object]]:
    """A run by parts that goes on from the checkpoint of 4 processes on 2, and on 3 from theirs; and one in one."""
    planned = plan(small(BY_PART["gauss_newton soap, by part"], update="parts"))
    folder = Path(tempfile.mkdtemp())

    def hand_over(crews: Crews) -> dict[str, object]:
        found = {}
        for name, sizes in {"moved": (4, 2, 3), "alone": (1, 1, 1)}.items():
            for step, size in enumerate(sizes):
                if (crew := crews(size)) is not None:
                    program = make_program(planned, crew=crew)
                    path = checkpoint.make_path(folder / name, step)
                    state = checkpoint.load(path, program.make_template(), program.device) if step else program.init()
                    drawn = torch.Generator().manual_seed(step)
                    state, _ = program.step(state, torch.randint(256, (planned.microbatches, 1, 9), generator=drawn))
                    held = {"parts": len(state.optimizer.inner["all"].parts), "bytes": count_bytes(state.optimizer)}
                    path = checkpoint.save(folder / name, state, crew)
                    found[f"{name} {size}"] = crew.collect(held)
                dist.barrier()
            found[name] = {file.name: hash_file(file) for file in sorted((folder / name / "step_00000003").iterdir())}
        return found

    return hand_over


def conversation() -> Callable[[Crews], dict[str, object]]:
    def talk(crews: Crews) -> dict[str, object]:
        crew, pair = crews(3), crews(2)

        def fail() -> None:
            raise DiskProblem("no room")

        try:
            crew.run_first(fail, lambda: None)
        except DiskProblem as error:
            failed = [type(error).__name__, str(error)]
        sent, gathered = None, _gathered(torch.ones(1))
        if pair is not None:
            pair = pair.divide(4, {})
            pair.add_up(lambda m: {"a": torch.full((6, 5), float(m)), "b": torch.ones(2)}, 4)
            sent = pair.count.sent
        return {
            "collected": crew.collect({"rank": crew.rank, "text": "x" * crew.rank}),
            "most": crew.find_largest(crew.rank, -crew.rank),
            "order": crew.collect(crew.run_first(lambda: "first", lambda: "then")),
            "failed": crew.collect(failed),
            "sent": sent,
            "flipped": _flipped(crew),
            "tangent": torch.func.jvp(lambda x: x, (gathered,), (gathered,))[1].sum().item(),
            "all_reduce": 2 * (2 - 1) // 2 * 32 * 4,
        }

    return talk


def _flipped(crew: Crew) -> list[str]:
    """Return the errors for a bit that differs in process 1, of the weights and of a state, and for swapped weights."""
    said = []
    for where in ("w", "momentum", "swapped"):
        tensors = {"w": torch.arange(5.0), "momentum": torch.zeros(3)}
        require_same(crew, State(7, {"w": tensors["w"]}, {"momentum": tensors["momentum"]}))
        if crew.rank == 1 and where == "swapped":
            tensors["w"] = tensors["w"].flip(0)
        elif crew.rank == 1:
            tensors[where].view(torch.int32)[2] ^= 1
        try:
            require_same(crew, State(7, {"w": tensors["w"]}, {"momentum": tensors["momentum"]}))
        except GnflowError as error:
            said.append(str(error))
    return said


def tangent_eager() -> Callable[[Crews], float]:
    return lambda crews: _tangent(_gathered).sum().item()


def tangent_compiled() -> Callable[[Crews], float]:
    return lambda crews: torch.compile(lambda: _tangent(_gathered), fullgraph=True)().sum().item()


def _gathered(w: Tensor) -> Tensor:
    return all_gather_tensor(w, 0, dist.group.WORLD)


def _tangent(function: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.func.jvp(function, (torch.ones(1),), (torch.ones(1),))[1]
