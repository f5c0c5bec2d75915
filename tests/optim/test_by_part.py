"""Updates by parts are the updates on stacks, whatever is clipped."""

import pytest
import torch
from crew_work import small
from pydantic import ValidationError

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.parts import assign_parts
from gnflow.compiler.plan import plan
from gnflow.objective import Metrics, Params
from gnflow.optim.by_part import Ownership, divide
from gnflow.optim.protocol import eager
from gnflow.spec.experiment import Experiment

CLIPPED = {
    "no clip": {"kind": "soap", "precondition_frequency": 2},
    "one clip": {"kind": "muon", "clip": 0.05},
    "a clip of their own for others": {"kind": "muon", "clip": 0.1, "others": {"kind": "adamw", "clip": 0.02}},
    "a clip for others alone": {"kind": "muon", "others": {"kind": "adamw", "clip": 0.02}},
}


def train(experiment: Experiment, ownership: Ownership | None) -> tuple[Params, Metrics]:
    """Three steps in float64."""
    network = build.build_model(experiment, "plain")
    optimizer = methods.build_optimizer(experiment.optimizer, network, 3, eager, ownership=ownership)
    objective = build.build_objective(network, experiment)
    params = {name: weight.double() for name, weight in network.init(0).items()}
    state, metrics = optimizer.init(params), {}
    for step in range(3):
        tokens = torch.randint(256, (2, 1, 9), generator=torch.Generator().manual_seed(step))
        params, state, metrics = optimizer.step(objective, params, state, tokens)
    return params, metrics


@pytest.mark.parametrize("name", CLIPPED)
def test_weights_and_metrics_are_those_of_stacks(name: str) -> None:
    experiment = small({**CLIPPED[name], "microbatches": 2})
    (one, measured), (other, again) = train(experiment, None), train(experiment, Ownership())
    torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(again, measured, rtol=1e-10, atol=1e-12)


def test_a_clip_of_a_part_changes_the_weights() -> None:
    found = [train(small({**CLIPPED[name], "microbatches": 2}), Ownership())[0] for name in list(CLIPPED)[1:]]
    assert all(trees.norm(trees.subtract(found[0], other)) > 1e-6 for other in found[1:])


def test_a_part_is_a_matrix_or_all_vectors_of_a_rule() -> None:
    routes = {"a": "muon", "b": "muon", "c": "others", "d": "others", "e": "lamb", "f": "lamb"}
    shapes = {"a": (4, 6), "b": (4, 6), "c": (3,), "d": (5,), "e": (4, 4), "f": (7,)}
    found = [(tuple(stacks.shapes), *stacks.rules) for stacks in divide(routes, shapes, each=["lamb"])]
    assert found == [
        (("a",), "muon:4x6"), (("b",), "muon:4x6"), (("c", "d"), "others:8"),
        (("e",), "lamb:4x4"), (("f",), "lamb:7"),
    ]  # fmt: skip
    assert [*divide(routes, shapes, transposed=["a"])[0].rules] == ["muon:6x4"]


def test_the_most_expensive_parts_have_different_owners() -> None:
    planned = plan(small({"kind": "muon", "microbatches": 2}, update="parts"))
    owners = assign_parts(planned.parts, 3)
    load = [sum(part.cost for name, part in planned.parts.items() if owners[name] == rank) for rank in range(3)]
    assert max(load) <= 4 / 3 * max(sum(load) / 3, *(part.cost for part in planned.parts.values()))
    names = [name for part in planned.parts.values() for name in part.names]
    assert sorted(names) == sorted(row.name for row in planned.parameters)
    assert planned.calls["update.muon:8x32"] == planned.calls["update.muon:32x8"] == 1


@pytest.mark.parametrize("kind", ["fop_soap", "sophia"])
def test_methods_of_all_parameters_at_once_refuse_parts(kind: str) -> None:
    with pytest.raises(ValidationError, match=f"`parts` needs updates that can be made matrix by matrix, but `{kind}`"):
        small({"kind": kind, "microbatches": 2}, update="parts")
