import pytest
import torch
from problems import noise

from gnflow import trees
from gnflow.optim import adamw


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_follows_torch(decay):
    ours = noise({"a": torch.empty(5, 3), "b": torch.empty(7)}, 0)
    theirs = [torch.nn.Parameter(w.clone()) for w in ours.values()]
    reference = torch.optim.AdamW(theirs, lr=0.02, betas=(0.9, 0.99), eps=1e-8, weight_decay=decay)
    transform = adamw(0.02, (0.9, 0.99), 1e-8, decay)
    state = transform.init(ours)
    for step in range(50):
        gradients = noise(ours, step + 1)
        for parameter, gradient in zip(theirs, gradients.values(), strict=True):
            parameter.grad = gradient.clone()
        reference.step()
        updates, state = transform.update(gradients, state, ours)
        ours = trees.add(ours, updates)
    for mine, parameter in zip(ours.values(), theirs, strict=True):
        torch.testing.assert_close(mine, parameter.detach(), atol=1e-6, rtol=1e-6)


def test_with_nesterov_it_is_nadam_with_decoupled_decay():
    lr, b1, b2, eps, decay = 0.02, 0.9, 0.99, 1e-8, 0.1
    transform = adamw(lr, (b1, b2), eps, decay, nesterov=True)
    ours = {"a": noise({"a": torch.empty(5, 3)}, 0)["a"].double()}
    w, m, v, state = ours["a"].clone(), 0.0, 0.0, transform.init(ours)
    for t in range(1, 9):
        g = noise(ours, t)["a"]
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        w = w - lr * (ahead / ((v / (1 - b2**t)).sqrt() + eps) + decay * w)
        updates, state = transform.update({"a": g}, state, ours)
        ours = trees.add(ours, updates)
        torch.testing.assert_close(ours["a"], w, rtol=1e-12, atol=1e-12)


def test_the_learning_rate_is_an_input_of_the_update():
    params = {"a": torch.ones(2)}
    transform = adamw(0.1)
    state = transform.init(params)
    gradient = {"a": torch.tensor([1.0, -2.0])}
    slow, _ = transform.update(gradient, state, params)
    fast, _ = transform.update(gradient, state._replace(learning_rate=state.learning_rate * 3), params)
    torch.testing.assert_close(fast["a"], 3 * slow["a"])
