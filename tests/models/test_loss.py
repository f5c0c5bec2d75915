import pytest
import torch
from torch.nn import functional

from gnflow.models.loss import (
    Targets,
    compute_cross_entropy,
    compute_logit_gradient,
    compute_logit_hessian_product,
    compute_loss_and_probabilities,
    compute_probabilities,
    compute_token_losses,
    split,
)

IDS = torch.tensor([[0, 4, 2], [1, 1, 3]])
WEIGHTS = torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.5, 0.5]])
TARGETS = {
    "text": Targets(IDS),
    "weighted": Targets(IDS, WEIGHTS),
    "weighted, softmax by modality": Targets(IDS, WEIGHTS, apart=2),
}


def logits(seed=0):
    return torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_split_shifts_by_one():
    inputs, targets = split(torch.arange(6).view(1, 6))
    assert inputs.tolist() == [[0, 1, 2, 3, 4]]
    assert targets.ids.tolist() == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_closed_forms_equal_automatic_differentiation(targets):
    z, tangent = logits(), logits(1)
    slope = torch.func.grad(lambda z: compute_cross_entropy(z, targets))
    p = compute_probabilities(z, targets)
    torch.testing.assert_close(compute_logit_gradient(p, targets), slope(z))
    _, bend = torch.func.jvp(slope, (z,), (tangent,))
    torch.testing.assert_close(compute_logit_hessian_product(p, tangent, targets), bend)


def test_of_text_it_is_the_mean_bit_for_bit():
    z = logits()
    assert torch.equal(compute_cross_entropy(z, Targets(IDS)), functional.cross_entropy(z.view(6, 5), IDS.view(6)))


@pytest.mark.parametrize("apart", [None, 2])
def test_the_weighted_loss_is_the_weighted_mean_over_tokens(apart):
    z, total = logits(), 0.0
    for row in range(2):
        for time in range(3):
            target = int(IDS[row, time])
            chosen = range(5) if apart is None else range(apart) if target < apart else range(apart, 5)
            normaliser = sum(z[row, time, i].exp() for i in chosen).log()
            total += WEIGHTS[row, time] * (normaliser - z[row, time, target])
    expected = total / WEIGHTS.sum()
    torch.testing.assert_close(compute_cross_entropy(z, Targets(IDS, WEIGHTS, apart=apart)), expected)


def test_equal_weights_are_no_weights():
    z = logits()
    even = Targets(IDS, torch.full((2, 3), 0.5))
    torch.testing.assert_close(compute_cross_entropy(z, even), compute_cross_entropy(z, Targets(IDS)))
    torch.testing.assert_close(compute_token_losses(z, even).mean(), compute_cross_entropy(z, even))


def test_a_softmax_by_modality_takes_no_notice_of_the_other_one():
    z, targets = logits(), TARGETS["weighted, softmax by modality"]
    moved = torch.where((torch.arange(5) >= 2) == (IDS >= 2).unsqueeze(-1), z, logits(7))
    assert not torch.equal(z, moved)
    assert torch.equal(compute_cross_entropy(z, targets), compute_cross_entropy(moved, targets))
    assert (compute_probabilities(z, targets)[0, 0, 2:] == 0).all()
    assert (compute_probabilities(z, targets)[0, 1, :2] == 0).all()


def test_without_any_weight_the_loss_and_its_gradient_are_zero():
    none = Targets(IDS, torch.zeros(2, 3))
    assert compute_cross_entropy(logits(), none) == 0
    assert not compute_logit_gradient(compute_probabilities(logits(), none), none).any()


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_loss_and_probabilities_are_as_exact_as_torch_has_them(scale, shift):
    generator = torch.Generator().manual_seed(3)
    z = scale * torch.randn(4, 16, 500, generator=generator) + shift
    targets = Targets(torch.randint(500, (4, 16), generator=generator))
    loss, p = compute_loss_and_probabilities(z, targets)
    exact = torch.softmax(z.double(), -1)
    wanted = functional.cross_entropy(z.double().flatten(0, 1), targets.ids.flatten())
    assert (
        abs(loss - wanted) <= 4 * abs(functional.cross_entropy(z.flatten(0, 1), targets.ids.flatten()) - wanted) + 1e-6
    )
    assert (p - exact).abs().max() <= 5e-7
    assert (p.sum(-1) - 1).abs().max() <= 2e-6
