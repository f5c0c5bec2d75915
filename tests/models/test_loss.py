import torch

from gnflow.models.loss import cross_entropy, logit_gradient, logit_hessian_product, split


def test_split_shifts_by_one():
    inputs, targets = split(torch.arange(6).view(1, 6))
    assert inputs.tolist() == [[0, 1, 2, 3, 4]]
    assert targets.tolist() == [[1, 2, 3, 4, 5]]


def test_closed_forms_equal_automatic_differentiation():
    logits, targets = torch.randn(2, 3, 5, dtype=torch.float64), torch.tensor([[0, 4, 2], [1, 1, 3]])
    tangent = torch.randn_like(logits)
    slope = torch.func.grad(cross_entropy)
    probabilities = torch.softmax(logits, -1)
    torch.testing.assert_close(logit_gradient(probabilities, targets), slope(logits, targets))
    _, bend = torch.func.jvp(lambda z: slope(z, targets), (logits,), (tangent,))
    torch.testing.assert_close(logit_hessian_product(probabilities, tangent), bend)
