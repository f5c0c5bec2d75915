"""Write a first spec. It runs without changes, and comments explain the meaning, range and default of each value."""

import json
import textwrap
from collections.abc import Collection, Iterator, Mapping

from gnflow.spec.base import Spec
from gnflow.spec.canonical import format_value
from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import Shape, find_help, list_shapes, summarize
from gnflow.spec.kinds import get_current
from gnflow.spec.named import GNFLOW
from gnflow.spec.tree import Plain

WIDTH = 110
# Batch and rates with which each method makes its way in a minute or two on two cores; not tuned.
OTHERS: dict[str, Plain] = {"kind": "adamw", "learning_rate": 0.012}
OPTIMIZERS: dict[str, dict[str, Plain]] = {
    "adamw": {"microbatches": 4},
    "muon": {"microbatches": 4, "learning_rate": 0.02, "scale": "match_rms", "others": OTHERS},
    "rmnp": {"microbatches": 4, "learning_rate": 0.01, "scale": "match_rms", "others": OTHERS},
    "soap": {"microbatches": 4, "others": OTHERS},
    "lion": {"microbatches": 4, "learning_rate": 0.001},
    "normuon": {"microbatches": 4, "learning_rate": 0.02, "scale": "match_rms", "others": OTHERS},
    "kl_soap": {"microbatches": 4, "others": OTHERS},
    "soap_muon": {"microbatches": 4, "learning_rate": 0.02, "scale": "match_rms", "others": OTHERS},
    "sophia": {"microbatches": 4, "learning_rate": 0.001},
    "kfac": {"microbatches": 4, "learning_rate": 0.02, "others": OTHERS},
    "newton_muon": {"microbatches": 4, "learning_rate": 0.02, "scale": "match_rms", "others": OTHERS},
    "fop_soap": {"microbatches": 4, "others": OTHERS},
    "ml_fop_soap": {"microbatches": 8, "others": OTHERS},
    "gauss_newton": {
        "inner": {"kind": "muon", "learning_rate": 0.02, "scale": "match_rms", "others": OTHERS},
        "schedule": "constant",
        "average": 0.5,
    },
}
SHARED: dict[str, Plain] = {"microbatches": 4, "others": OTHERS}
BUDGETS: dict[str, dict[str, Plain]] = {
    "gauss_newton": {"steps": 14, "evaluate_every": None, "checkpoint_every": 5},
}
BUDGET: dict[str, Plain] = {"steps": 300, "evaluate_every": None, "checkpoint_every": 100}
# The task of the shipped specs, so that runs can be compared with theirs.
TRAINING: dict[str, Plain] = {
    "rows": 32,
    "start": {"kind": "warmup", "steps": 60},
    "target": {"metric": "loss/held_out", "at_most": 3.6},
}
SHAKESPEARE: Mapping[str, Plain] = {"kind": "shakespeare"}
SHOWN: dict[str, Collection[str]] = {
    "model": ("kind", "layers", "width", "heads"),
    "data": ("kind", "source", "tokenizer", "context"),
    "training": ("seed", "rows", "steps", "start", "target", "evaluate_every", "checkpoint_every"),
}


def list_kinds() -> tuple[str, ...]:
    """Return the optimizers that a scaffold can be made for."""
    return list_shapes(Experiment)["optimizer"].kinds


def make_example(name: str, kind: str, source: Mapping[str, Plain] = SHAKESPEARE) -> Experiment:
    """Make a small experiment with this optimizer on this text. Raises ValidationError for an invalid name."""
    training = TRAINING if source == SHAKESPEARE else {**TRAINING, "target": None}
    return Experiment.model_validate(
        {
            "name": name,
            "model": "decoder",
            "data": {"kind": "text", "source": source, "tokenizer": {"kind": "bpe", "vocabulary": 512}},
            "optimizer": {"kind": kind, **_begin_optimizer(kind)},
            "training": {**training, **BUDGETS.get(kind, BUDGET)},
        }
    )


def _begin_optimizer(kind: str) -> Mapping[str, Plain]:
    """Return the first values of a kind. One of a project has its own rate, and the batch and `others` of the rest."""
    named = get_current().find("optimizers", kind)
    if named is None or named.place == GNFLOW:
        return OPTIMIZERS.get(kind, {})
    fields = list_shapes(Experiment)["optimizer"].models[kind].model_fields
    return {key: value for key, value in SHARED.items() if key in fields}


def write_whole(experiment: Experiment) -> str:
    """Return the text of a spec that extends no other file."""
    sections = [
        (name, getattr(experiment, name), SHOWN.get(name)) for name in ("model", "data", "optimizer", "training")
    ]
    return f"name: {experiment.name}\n" + "".join(_write_section(*section) for section in sections)


def write_derived(experiment: Experiment, base: str, training: Mapping[str, Plain]) -> str:
    """Return the text of a spec that extends the file `base` and changes its optimizer and `training`."""
    changed = "".join(f"  {key}: {format_value(value)}\n" for key, value in training.items())
    return (
        f"extends: {base}\nname: {experiment.name}\n"
        + _write_section("optimizer", experiment.optimizer, None)
        + (f"\ntraining:\n{changed}" if training else "")
    )


def _write_section(name: str, part: Spec, shown: Collection[str] | None) -> str:
    shape = list_shapes(Experiment)[name]
    heading = _write_comment(_write_sentence(find_help(Experiment, name), shape, Experiment, name), "")
    return "\n".join(["", *heading, f"{name}:", *_write_fields(part, "  ", shown)]) + "\n"


def _write_fields(part: Spec, indent: str, shown: Collection[str] | None = None) -> Iterator[str]:
    model = type(part)
    names = sorted(list_shapes(model), key=lambda name: name != "kind")
    for name in names:
        if shown is not None and name not in shown:
            continue
        shape, value = list_shapes(model)[name], getattr(part, name)
        if name == "kind":
            yield from _write_comment(summarize(model), indent)
            yield f"{indent}kind: {value}"
            continue
        yield from _write_comment(_write_sentence(find_help(model, name), shape, model, name), indent)
        if isinstance(value, Spec):
            yield f"{indent}{name}:"
            yield from _write_fields(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_format_value(value)}"


def _write_sentence(text: str, shape: Shape, model: type[Spec], name: str) -> str:
    """Return the help, the allowed values, the unit and the default as one sentence."""
    allowed = shape.allowed
    if len(shape.kinds) > 1:
        allowed = f"kinds {', '.join(f'`{kind}`' for kind in shape.kinds)}"
    field = model.model_fields[name]
    facts = [allowed if not shape.models or shape.tagged else "", f"in {shape.unit}" if shape.unit else ""]
    facts.append("" if field.is_required() else f"default {_format_default(field.get_default())}")
    told = "; ".join(filter(None, facts))
    return f"{text} ({told})" if told else text


def _format_default(value: object) -> str:
    return getattr(value, "kind", "as follows") if isinstance(value, Spec) else _format_value(value)


def _format_value(value: object) -> str:
    """Return a value on one line. JSON is valid YAML."""
    match value:
        case tuple() if any(isinstance(item, Spec) for item in value):
            return json.dumps([item.model_dump(mode="json") for item in value])
        case tuple():
            return f"[{', '.join(map(format_value, value))}]"
        case _:
            return format_value(value)


def _write_comment(text: str, indent: str) -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False)
