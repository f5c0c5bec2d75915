"""What holds for the transform of every built-in rule. A new rule, or an option that changes the update, is a row."""

import pytest
import torch
from problems import noise
from torch.utils import _pytree as pytree

from gnflow import optim
from gnflow.spec.built_in import BUILT_IN

ROWS: dict[str, dict[str, object]] = {kind: {"learning_rate": 0.1} for kind in BUILT_IN["optimizers"]}
MUON = {"learning_rate": 0.1, "weight_decay": 0.1}
ROWS |= {
    "muon before": {**MUON, "second_moment": "before", "split": 2},
    "muon after": {**MUON, "second_moment": "after", "scale": "spectral"},
    "muon rows": {**MUON, "equalize": "rows", "coefficients": "convergent", "ns_steps": 12},
}
BASIS = {"learning_rate": 0.1, "precondition_frequency": 1}
ROWS |= {
    "soap normalized": {**BASIS, "normalize_gradients": True},
    "soap one-sided": {**BASIS, "max_precondition_dim": 5},
    "kl_soap fresh": {**BASIS, "fresh_factors": True},
    "kl_soap one-sided": {**BASIS, "max_precondition_dim": 5},
    "soap_muon one-sided": {**BASIS, "max_precondition_dim": 5, "nesterov": False},
    "kfac corrected": {"learning_rate": 0.1, "form": "corrected", "scale": "none"},
    "normuon split": {**MUON, "split": 2, "scale": "original"},
}
WITH_VECTORS = {"adamw", "lion", "soap", "kl_soap", "sophia"}
# A first gradient that is tall or wide leaves null spaces, whose basis is anyone's.
TWO_SIDED = {"soap", "soap normalized", "kl_soap", "kl_soap fresh", "soap_muon"}


def transform(row, **options):
    return getattr(optim, row.split()[0])(**(ROWS[row] | options))


def drawn(shapes, seed, dtype=torch.float64):
    return noise({name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}, seed)


def followed(made, params, given, steps=4):
    """The weights after some updates, and the last state."""
    state = made.init(params)
    for step in range(steps):
        gradients = given(step)
        if made.refresh is not None:
            state = made.refresh(gradients, state)
        updates, state = made.update(gradients, state, params)
        params = {name: w + updates[name] for name, w in params.items()}
    return params, state


def test_every_built_in_rule_is_a_row():
    assert {row.split()[0] for row in ROWS} == set(BUILT_IN["optimizers"])


@pytest.mark.parametrize(
    ("row", "shape"),
    [(row, shape) for row in ROWS for shape in ((6, 6), (4, 10), (10, 4)) if row not in TWO_SIDED or shape == (6, 6)],
)
def test_a_stack_is_its_matrices(row, shape):
    apart, _ = followed(
        transform(row), drawn({"a": shape, "b": shape}, 0), lambda step: drawn({"a": shape, "b": shape}, step + 1)
    )
    stacked, _ = followed(
        transform(row),
        {"s": torch.stack(list(drawn({"a": shape, "b": shape}, 0).values()))},
        lambda step: {"s": torch.stack(list(drawn({"a": shape, "b": shape}, step + 1).values()))},
    )
    torch.testing.assert_close(stacked["s"], torch.stack(list(apart.values())), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(18, 6), (18, 20), (18, 5)])
@pytest.mark.parametrize(("kind", "scale"), [("muon", "original"), ("muon", "match_rms"), ("normuon", "spectral")])
def test_a_split_weight_is_each_of_its_parts_alone(kind, scale, shape):
    made = {split: getattr(optim, kind)(**MUON, scale=scale, split=split) for split in (1, 3)}
    fused, state = followed(made[3], drawn({"w": (2, *shape)}, 0), lambda step: drawn({"w": (2, *shape)}, step + 1))
    assert state.momentum["w"].shape == (2, *shape)

    def take_part(seed):
        return {"w": drawn({"w": (2, *shape)}, seed)["w"].reshape(6, -1, shape[1])}

    alone, _ = followed(made[1], take_part(0), lambda step: take_part(step + 1))
    torch.testing.assert_close(fused["w"].reshape(6, -1, shape[1]), alone["w"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["muon", "normuon", "soap_muon"])
@pytest.mark.parametrize(("option", "value"), [("scale", "match"), ("coefficients", "polar"), ("dtype", "half")])
def test_a_misspelt_option_of_the_iteration_is_refused(kind, option, value):
    with pytest.raises(ValueError, match=f"{kind}'s {option} is .*, not `{value}`"):
        getattr(optim, kind)(**{option: value})


@pytest.mark.parametrize("row", ROWS)
def test_gradients_of_zero_move_nothing_and_leave_every_number_finite(row):
    params = drawn({"w": (6, 3)}, 0)
    weights, state = followed(transform(row, weight_decay=0.0), params, lambda _: {"w": torch.zeros_like(params["w"])})
    assert torch.equal(weights["w"], params["w"])
    assert all(value.isfinite().all() for value in tensors(state))


@pytest.mark.parametrize("row", ROWS)
def test_a_row_and_a_column_without_gradients_leave_every_number_finite(row):
    def given(step):
        gradient = drawn({"w": (6, 4)}, step + 1)["w"]
        gradient[2], gradient[:, 1] = 0, 0
        return {"w": gradient}

    weights, state = followed(transform(row), drawn({"w": (6, 4)}, 0), given)
    assert all(value.isfinite().all() for value in (weights["w"], *tensors(state)))


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 4), (2, 4, 0)])
@pytest.mark.parametrize("row", ROWS)
def test_an_empty_tensor_stays_empty(row, shape):
    weights, _ = followed(transform(row), {"w": torch.empty(shape)}, lambda _: {"w": torch.empty(shape)})
    assert weights["w"].shape == shape


@pytest.mark.parametrize("row", [row for row in ROWS if row.split()[0] not in WITH_VECTORS])
def test_a_method_of_matrices_refuses_a_vector_by_name(row):
    with pytest.raises(ValueError, match=rf"{row.split()[0]} .* `gain` has shape \(3,\)"):
        transform(row).init({"gain": torch.ones(3)})


@pytest.mark.parametrize("row", ROWS)
def test_gradients_weights_and_state_are_not_written_to(row):
    made, params, gradients = transform(row), drawn({"w": (4, 6)}, 0), drawn({"w": (4, 6)}, 1)
    _, state = followed(made, params, lambda _: gradients, 2)
    given = (params["w"], gradients["w"], *tensors(state))
    before = [value.clone() for value in given]
    made.update(gradients, state, params)
    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))


def tensors(state):
    return pytree.tree_leaves(state)
