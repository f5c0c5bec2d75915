import pytest
from problems import experiment

from gnflow.compiler.blocks import find_blocks
from gnflow.compiler.build import build_model
from gnflow.compiler.plan import plan
from gnflow.spec.data import Tokens
from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import list_shapes
from gnflow.verify.subject import shrink

LARGE = {"layers": 12, "width": 768, "heads": 12, "key_value_heads": 4, "hidden": 2048, "feedforward": "swiglu"}


@pytest.mark.parametrize("kind", list_shapes(Experiment)["optimizer"].kinds)
def test_the_small_copy_of_a_large_experiment_can_be_planned(kind):
    small = shrink(experiment({"kind": kind}, model=LARGE))
    assert sum(row.shape[0] for row in plan(small).parameters) < 500
    assert small.optimizer.kind == kind
    assert shrink(small) == small


def test_sizes_and_counts_are_cut_down_and_choices_are_kept():
    inner = {
        "kind": "soap", "learning_rate": 0.1, "precondition_frequency": 10, "max_precondition_dim": 1000,
        "microbatches": 64,
    }  # fmt: skip
    method = {"kind": "gauss_newton", "inner": inner, "inner_steps": 64, "objective": "prox_linear", "average": 0.5}
    small = shrink(experiment(method, model=LARGE, training={"steps": 1000, "rows": 32}))
    assert (small.model.layers, small.model.width, small.model.key_value_heads, small.model.hidden) == (1, 16, 1, 24)
    assert small.model.feedforward == "swiglu"
    assert isinstance(small.data.source, Tokens)
    assert (small.training.steps, small.training.rows) == (12, 2)
    assert (small.optimizer.inner_steps, small.optimizer.inner.microbatches) == (4, 6)
    assert (small.optimizer.objective, small.optimizer.average) == ("prox_linear", 0.5)
    assert (small.optimizer.inner.learning_rate, small.optimizer.inner.precondition_frequency) == (0.1, 10)


def test_blocks_that_overlap_in_the_experiment_overlap_in_its_small_copy():
    method = {"kind": "gauss_newton", "blocks": "prefix", "warm_start": False}
    small = shrink(experiment(method, model=LARGE))
    blocks = find_blocks(build_model(small, "plain"), "prefix")
    moved = [name for names in blocks.values() for name in names]
    assert len(moved) > len(set(moved))
    assert shrink(small) == small
    assert shrink(experiment(method | {"blocks": "layer"}, model=LARGE)).model.layers == 1


def test_a_side_too_long_for_an_eigenbasis_stays_so():
    small = shrink(experiment({"kind": "soap", "max_precondition_dim": 1000}, model=LARGE))
    assert 16 <= small.optimizer.max_precondition_dim < 24


def test_rules_that_own_nothing_in_the_small_model_are_left_out():
    rules = [
        {"match": r"blocks\.11\.", "use": "adamw"},
        {"match": "head", "use": "muon"},
        {"match": "head.weight", "use": "adamw"},
    ]
    small = shrink(experiment({"kind": "muon", "rules": rules}))
    assert [rule.match for rule in small.optimizer.rules] == ["head"]
