import subprocess
import sys

import pytest
import torch
from problems import noise
from pytorch_optimizer import Lion

from gnflow import trees
from gnflow.optim import lion

SHAPES = {"a": (5, 3), "b": (7,), "c": (2, 3, 4)}


def drawn(seed, dtype=torch.float64):
    return noise({name: torch.empty(shape, dtype=dtype) for name, shape in SHAPES.items()}, seed)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_follows_the_published_code(decay):
    ours = drawn(0)
    theirs = {name: torch.nn.Parameter(w.clone()) for name, w in ours.items()}
    reference = Lion(theirs.values(), lr=0.02, betas=(0.9, 0.97), weight_decay=decay)
    transform = lion(0.02, (0.9, 0.97), decay)
    state = transform.init(ours)
    for step in range(20):
        gradients = drawn(step + 1)
        for name, parameter in theirs.items():
            parameter.grad = gradients[name].clone()
        reference.step()
        updates, state = transform.update(gradients, state, ours)
        ours = trees.add(ours, updates)
        for name, parameter in theirs.items():
            # The reference decays before it steps, here both are one sum.
            torch.testing.assert_close(ours[name], parameter.detach(), atol=1e-12, rtol=0)


def test_every_entry_moves_by_the_learning_rate_whatever_the_size_of_its_gradient():
    params, gradients = drawn(0), drawn(1)
    transform = lion(0.5)
    updates, _ = transform.update(trees.scale(gradients, 1e-6), transform.init(params), params)
    for name, g in gradients.items():
        assert torch.equal(updates[name], -0.5 * g.sign())


def test_the_momentum_lags_behind_the_interpolation_that_the_sign_is_taken_of():
    params = {"w": torch.zeros(1)}
    transform = lion(1.0, betas=(0.5, 0.75))
    _, state = transform.update({"w": torch.tensor([4.0])}, transform.init(params), params)
    assert state.momentum["w"].item() == 1.0
    up, _ = transform.update({"w": torch.tensor([-0.9])}, state, params)
    down, _ = transform.update({"w": torch.tensor([-1.1])}, state, params)
    assert (up["w"].item(), down["w"].item()) == (-1.0, 1.0)


def test_the_schedule_acts_on_the_step():
    params, gradients = drawn(0), drawn(1)
    transform = lion(1.0, schedule=lambda count: (count + 1).double() / 4)
    updates, state = transform.update(gradients, transform.init(params), params)
    assert updates["b"].abs().unique().tolist() == [0.25]
    updates, _ = transform.update(gradients, state, params)
    assert updates["b"].abs().unique().tolist() == [0.5]


def test_its_class_and_its_file_import_no_torch():
    code = "import gnflow.optim.lion, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
