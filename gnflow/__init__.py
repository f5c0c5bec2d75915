"""Declarative experiments with second-order optimizers for LLM pretraining.

`load` reads a spec, `plan` plans it, `compile` makes its program and `run` runs it. `batches` has the data of a plan,
and `Run` reads the directory of a run. Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gnflow.compiler.plan import plan as plan
    from gnflow.compiler.program import compile as compile  # noqa: A004  # the public name
    from gnflow.spec.experiment import Experiment
    from gnflow.train.feed import batches as batches
    from gnflow.train.loop import run as run
    from gnflow.train.run import Run as Run

__all__ = ["Run", "batches", "compile", "load", "plan", "run"]

_HOMES = {
    "plan": "gnflow.compiler.plan",
    "compile": "gnflow.compiler.program",
    "batches": "gnflow.train.feed",
    "run": "gnflow.train.loop",
    "Run": "gnflow.train.run",
}


def load(path: "Path | str", sets: "Sequence[str]" = ()) -> "Experiment":
    """Return the experiment that a spec file describes, with `key=value` overrides.

    Raises SpecError with every problem of the file.
    """
    from gnflow.spec.load import load

    return load(path, sets).experiment


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module `gnflow` has no `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
