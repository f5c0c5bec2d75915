from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gnflow import trees


class Inner(NamedTuple):
    updates: Tensor
    momentum: dict[str, Tensor]


def state():
    return {"muon": Inner(torch.tensor(3), {"a.b": torch.ones(2)}), "pair": (torch.zeros(1), torch.ones(1))}


def test_names_are_paths_and_the_state_comes_back_from_them():
    named = trees.name_tensors(state())
    assert set(named) == {"muon/updates", "muon/momentum/a.b", "pair/0", "pair/1"}
    doubled = {name: 2 * value for name, value in named.items()}
    back = trees.fill_tensors(state(), doubled)
    assert isinstance(back["muon"], Inner)
    assert back["muon"].updates.item() == 6
    assert torch.equal(back["muon"].momentum["a.b"], 2 * torch.ones(2))


def test_a_missing_tensor_is_named():
    with pytest.raises(KeyError, match="pair/1"):
        trees.fill_tensors(state(), {k: v for k, v in trees.name_tensors(state()).items() if k != "pair/1"})


def test_arithmetic():
    a, b = {"x": torch.tensor([3.0, 4.0])}, {"x": torch.tensor([1.0, 2.0])}
    assert trees.norm(a).item() == 5
    assert trees.dot(a, b).item() == 11
    assert trees.move_along(a, b, -1.0)["x"].tolist() == trees.subtract(a, b)["x"].tolist() == [2, 2]
    assert trees.select(torch.tensor(False), a, b)["x"] is not a["x"]
    assert trees.select(torch.tensor(False), a, b)["x"].tolist() == [1, 2]
    clone = trees.clone(a)
    clone["x"].zero_()
    assert trees.norm(a).item() == 5
