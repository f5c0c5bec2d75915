"""Numbers do not drift unnoticed: tiny runs of every kind of optimizer against what was stored of them."""

from pathlib import Path

import golden
import pytest

from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import list_shapes

STORED = golden.load()


def test_every_kind_of_optimizer_has_a_trajectory() -> None:
    kinds = set(list_shapes(Experiment)["optimizer"].kinds)
    assert {optimizer["kind"] for optimizer in golden.OPTIMIZERS.values()} == kinds
    assert STORED.keys() == golden.OPTIMIZERS.keys()


@pytest.mark.parametrize("name", golden.OPTIMIZERS)
def test_a_trajectory_is_what_it_was(name: str, tmp_path: Path) -> None:
    found = golden.trajectory(name, tmp_path)
    assert golden.drift(name, found, STORED) is None, "python tests/golden.py rewrites it, if the change is meant"


def test_a_drift_names_the_first_step_and_weight(tmp_path: Path) -> None:
    found = golden.trajectory("adamw", tmp_path)
    again = [moment._replace(weights=dict(moment.weights)) for moment in found]
    for step in (2, 3):
        norm, product = again[step].weights["head.weight"]
        again[step].weights["head.weight"] = (norm, product + 2e-4 * norm)
    assert str(golden.drift("adamw", again, STORED)).startswith("adamw, step 2: the product of `head.weight` is ")
    stored = {"adamw": STORED["adamw"] | {"bits": {golden.machine(): [moment.digest for moment in found]}}}
    assert golden.drift("adamw", found, stored) is None
    found[1] = found[1]._replace(digest="0" * 16)
    assert str(golden.drift("adamw", found, stored)).startswith("adamw, step 1: the bits of the state differ")
