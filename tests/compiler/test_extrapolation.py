"""Searches on many micro-batches are counted from two short ones. Counting every micro-batch is the oracle."""

import pytest
from problems import experiment

from gnflow.compiler import build
from gnflow.compiler.extrapolation import shorten_search
from gnflow.compiler.plan import count_step, plan
from gnflow.spec.experiment import Experiment

SEARCHES = [
    {"kind": "geometric", "trials": 3},
    {"kind": "bracket"},
    {"kind": "decrement"},
]


def make_experiment(search: dict[str, object], shares: int = 1, blocks: str = "full") -> Experiment:
    inner = {"kind": "muon", "microbatches": 1}
    method = {"kind": "gauss_newton", "inner": inner, "inner_steps": 50, "blocks": blocks, "search": search}
    made = experiment(method)
    return made.model_copy(update={"training": made.training.model_copy(update={"shares": shares})})


@pytest.mark.parametrize(
    ("search", "shares", "blocks"),
    [*((search, 1, "full") for search in SEARCHES), (SEARCHES[0], 4, "full"), (SEARCHES[0], 1, "layer")],
)
def test_a_long_search_counts_as_if_every_micro_batch_were_counted(
    search: dict[str, object], shares: int, blocks: str
) -> None:
    made = make_experiment(search | {"microbatches": 43}, shares, blocks)
    assert shorten_search(made) is not None
    counted = count_step(made, build.build_model(made, build.choose_kernel(made)))
    planned = plan(made)
    assert (planned.cost, dict(planned.calls)) == (counted.cost, dict(counted.calls))
    assert planned.memory == counted.memory


def test_a_short_search_is_counted_as_it_is() -> None:
    assert shorten_search(make_experiment({"kind": "geometric", "trials": 3, "microbatches": 8})) is None
