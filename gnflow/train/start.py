"""Make the weights that a run starts from: drawn at random, warmed up by AdamW, or read from a file.

Warmed weights are the same for every arm with this model, data, seed and batch. They are made once, eagerly and
with plain attention, whatever the arm uses, and are cached under a digest of all settings that they depend on.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from gnflow import faults
from gnflow.compiler import build
from gnflow.compiler.plan import Plan
from gnflow.compiler.plan import plan as make_plan
from gnflow.compiler.program import Program
from gnflow.compiler.program import compile as make_program
from gnflow.data.microbatches import Prepared
from gnflow.errors import DataError, SpecError
from gnflow.models.huggingface.pretrained import find_weights, read_pretrained
from gnflow.models.model import Model
from gnflow.objective import Params
from gnflow.spec.experiment import Experiment
from gnflow.spec.huggingface import HuggingFaceModel
from gnflow.spec.load import digest, load
from gnflow.spec.multimodal import Data
from gnflow.spec.optimizer import AdamW
from gnflow.spec.schedules import Constant
from gnflow.spec.tracking import NoTracking
from gnflow.spec.training import Checkpoint, Compile, Cost, Loss, Pretrained, Scratch, Warmup
from gnflow.train import checkpoint, disk, misfits
from gnflow.train.durations import Durations
from gnflow.train.results import EXPERIMENT
from gnflow.workspace import Workspace

Report = Callable[[str], None]
REPORT_SECONDS = 10.0


def make_start(
    plan: Plan, program: Program, dataset: Prepared, workspace: Workspace, report: Report = lambda line: None
) -> Params:
    """Make the first weights, on the device of the program. Raises SpecError if a file does not fit the model."""
    beginning, model = plan.experiment.training.start, plan.experiment.model
    match beginning:
        case Scratch():
            return program.initial()
        case Warmup():
            return _warm(program, beginning, dataset, workspace, report)
        case Pretrained() if isinstance(model, HuggingFaceModel):
            return _read_foreign(plan, program.device, model, workspace.root / model.path, "model.path")
        case Pretrained():
            raise SpecError("training.start: only a model of kind `huggingface` has pretrained weights")
        case Checkpoint(path=path) if isinstance(model, HuggingFaceModel) and find_weights(workspace.root / path):
            return _read_foreign(plan, program.device, model, workspace.root / path, misfits.KEY)
        case Checkpoint(path=path):
            return _read_weights(plan, program.device, workspace.root / path)
        case _:
            assert_never(beginning)


def _warm(program: Program, warmup: Warmup, dataset: Prepared, workspace: Workspace, report: Report) -> Params:
    plan = program.plan
    experiment = _make_warmup(plan.experiment, warmup)
    weights = build.build_model(experiment, "plain").weights
    shaped_by = {
        "torch": torch.__version__,
        "initial": {name: weight._asdict() for name, weight in weights.items()},
        "experiment": experiment.model_dump(mode="json"),
        "data": dataset.digest,
        "device": plan.device,
    }
    path = workspace.cache / "starts" / f"{digest(shaped_by)[:16]}.safetensors"
    device = torch.device(plan.device)
    kept = _read_cached(path, report)
    if kept is None:
        network = program.network if plan.attention == "plain" else None
        with Durations(workspace, experiment).time(f"warming the starting weights: {warmup.steps} AdamW steps", report):
            kept = {name: w.cpu().contiguous() for name, w in _train(experiment, dataset, network, report).items()}
        content = tensor_bytes(kept)
        disk.write(path, content)
        faults.pass_point("start.after_weights")
        disk.write(_name_digest(path), hashlib.sha256(content).hexdigest().encode())
    return {name: kept[name].to(device) for name in kept}


def _make_warmup(experiment: Experiment, warmup: Warmup) -> Experiment:
    """Make the spec of the pretraining: AdamW on one micro-batch per step, with only the settings that it needs."""
    training = experiment.training.model_copy(
        update={
            "steps": warmup.steps, "tokens": None, "start": Scratch(), "target": None,
            "evaluate_every": 1, "checkpoint_every": 1, "temporary_checkpoint_minutes": 5.0,
            "shares": 1, "on_nonfinite": "raise", "spike": None, "max_undone": 10, "average": None,
        }
    )  # fmt: skip
    schedule = Constant(warmup=warmup.steps // 10)
    return Experiment(
        name="warmup",
        model=experiment.model,
        data=experiment.data,
        optimizer=AdamW(learning_rate=warmup.learning_rate, schedule=schedule),
        training=training,
        metrics=(Loss(), Cost()),
        compile=Compile(mode="off"),
        tracking=NoTracking(),
    )


def _train(experiment: Experiment, dataset: Prepared, network: Model | None, report: Report) -> Params:
    plan = make_plan(experiment, attention="plain")
    program = make_program(plan, network=network)
    batches = dataset.make_microbatches(experiment.training.rows, experiment.training.seed, stream="start")
    state = program.init(program.initial())
    said = time.monotonic()
    for step in range(plan.steps):
        if time.monotonic() - said > REPORT_SECONDS:
            report(f"warming the starting weights: step {step} of {plan.steps}")
            said = time.monotonic()
        state, _ = program.step(state, batches.take(step * plan.microbatches, plan.microbatches))
    return state.params


def _name_digest(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _read_cached(path: Path, report: Report) -> Params | None:
    """Read the cached weights; None if they are absent or damaged, since they can be made again."""
    try:
        content, expected = path.read_bytes(), _name_digest(path).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest().encode() != expected:
        report(f"warning: {path} is not used: it does not match its SHA-256 digest")
        return None
    return read_tensors(content)


def _read_weights(plan: Plan, device: torch.device, path: Path) -> Params:
    file = path / checkpoint.PARAMS if path.is_dir() else path
    if (file.parent / checkpoint.MANIFEST).exists() and (damage := checkpoint.find_damage(file.parent)):
        raise DataError(f"training.start.path: {file.parent} is damaged: {damage}; restore a good copy")
    try:
        found = read_tensors(file.read_bytes())
    except OSError as error:
        raise misfits.explain_unreadable(path, file, error) from None
    except SafetensorError as error:
        raise DataError(f"training.start.path: {file} is not a readable safetensors file: {error}") from None
    if misfit := misfits.explain_misfit(file, found, plan.parameters):
        raise misfit
    _require_same_ids(file.with_name(EXPERIMENT), plan.experiment.data)
    return {row.name: found[row.name].to(device, torch.float32) for row in plan.parameters}


def _read_foreign(plan: Plan, device: torch.device, model: HuggingFaceModel, path: Path, key: str) -> Params:
    """Read the weights in a directory of transformers."""
    found = read_pretrained(model.config, path, key)
    if misfit := misfits.explain_misfit(path, found, plan.parameters):
        raise misfit
    return {row.name: found[row.name].to(device, torch.float32) for row in plan.parameters}


def _require_same_ids(stored: Path, data: Data) -> None:
    """Raise SpecError if the ids had another meaning in the spec that made the weights."""
    if not stored.is_file():
        return
    there, now = load(stored).experiment.data.meaning, data.meaning
    if differing := [f"data.{key}" for key in now if there.get(key, now[key]) != now[key]]:
        raise SpecError(
            f"training.start.path: the ids of {stored.parent} stand for other tokens than those of this spec\n"
            f"{' and '.join(differing)} must be as they are in {stored}"
        )
