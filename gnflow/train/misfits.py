"""Explain why starting weights do not fit this model, and what to name instead."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gnflow.compiler.plan import Parameter
from gnflow.errors import SpecError
from gnflow.train.checkpoint import PARAMS
from gnflow.train.results import MODEL

KEY = "training.start.path"
SHOWN = 8  # number of weights that are listed one by one
FOREIGN = (
    "config.json",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "model.safetensors",
    "consolidated.00.pth",
)
REMEDY = "name the `model` directory of a run of gnflow whose spec has the same `model`, or set `start: scratch`"


def explain_unreadable(path: Path, file: Path, error: OSError) -> SpecError:
    """Explain why a file of weights cannot be opened."""
    if path.is_dir() and (path / MODEL / PARAMS).is_file():
        return SpecError(f"{KEY}: {path} is a run; its weights are in {path / MODEL}\nname that directory")
    if path.is_dir() and (found := _find_foreign(path)):
        return _explain_foreign(path, found)
    return SpecError(f"{KEY}: {file} cannot be read: {error.strerror or error}\nrun the spec that writes it first")


def explain_misfit(file: Path, found: Mapping[str, Tensor], wanted: tuple[Parameter, ...]) -> SpecError | None:
    """Explain which weights are missing or have another shape; None if all fit."""
    wrong = [row for row in wanted if row.name not in found or tuple(found[row.name].shape) != row.shape]
    if not wrong:
        return None
    if not any(row.name in found for row in wanted):
        if foreign := _find_foreign(file.parent):
            return _explain_foreign(file, foreign)
        names = ", ".join([*sorted(found)[:3], *(["..."] if len(found) > 3 else [])]) or "no weights"
        return SpecError(f"{KEY}: {file} has none of the {len(wanted)} weights of this model; it has {names}\n{REMEDY}")
    lines = [f"{row.name}: expected {row.shape}, found {_format_shape(found.get(row.name))}" for row in wrong[:SHOWN]]
    more = [f"and {len(wrong) - SHOWN} more of {len(wanted)} weights"] if len(wrong) > SHOWN else []
    listed = "\n  ".join([*lines, *more])
    return SpecError(f"{KEY}: {file} does not fit the model\n  {listed}\nset `model` as in the spec that made them")


def _format_shape(weight: Tensor | None) -> str:
    return "nothing" if weight is None else str(tuple(weight.shape))


def _find_foreign(directory: Path) -> str | None:
    return next((name for name in FOREIGN if (directory / name).is_file()), None)


def _explain_foreign(path: Path, found: str) -> SpecError:
    return SpecError(
        f"{KEY}: {path} holds a model of another tool ({found}), whose weights have other names and shapes\n{REMEDY}"
    )
