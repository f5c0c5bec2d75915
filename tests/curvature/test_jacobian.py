import problems
import pytest
import torch

from gnflow import trees
from gnflow.curvature.jacobian import Jacobian

NAMES = ("blocks.0.attention.query.weight", "blocks.1.feedforward.up.weight", "blocks.1.feedforward.down.weight")


@pytest.mark.parametrize("variant", ["default", "grouped head norm", "track 3"])
@pytest.mark.parametrize("names", [NAMES[:1], NAMES])
def test_its_products_are_those_of_the_objective_again_and_again(variant, names):
    model, params, tokens = problems.small(variant)
    jacobian = Jacobian(model, params, names, tokens)
    objective = problems.build(model)
    for seed in range(2):
        direction = problems.noise(trees.pick(params, names), seed)
        expected = objective.product(direction, params, tokens)
        torch.testing.assert_close(jacobian.multiply(direction), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(jacobian.measure(direction), trees.dot(direction, expected), rtol=1e-9, atol=1e-12)


def test_weights_of_targets_count_and_no_mode_of_autograd_matters():
    model, params, tokens = problems.small()

    def weigh(tokens):
        inputs, targets = problems.small().model.split(tokens)
        return inputs, targets._replace(weights=torch.arange(targets.ids.numel()).view_as(targets.ids) % 3)

    weighted = model._replace(split=weigh)
    direction = problems.noise(trees.pick(params, NAMES), 0)
    with torch.no_grad():
        found = Jacobian(weighted, params, NAMES, tokens).multiply(direction)
    torch.testing.assert_close(
        found, problems.build(weighted).product(direction, params, tokens), rtol=1e-9, atol=1e-12
    )
    assert not any(x.requires_grad for x in (*found.values(), *params.values()))
