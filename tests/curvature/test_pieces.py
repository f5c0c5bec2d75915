"""Logits in pieces give what all of them at once do: values, gradients, models, products, of all weights and of blocks."""

import multimodal
import pytest
import torch
from multimodal import KINDS
from problems import VARIANTS, noise, small

from gnflow import trees
from gnflow.curvature import pieces
from gnflow.curvature.linearised import BENDS, SURROGATES, curvature, linearised
from gnflow.models.loss import cross_entropy

NAMES = [*VARIANTS, *KINDS]
SEVERAL = [1, 3, 20]  # the last one: a token each


def problem_of(name):
    return multimodal.small(name) if name in KINDS else small(name)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("count", SEVERAL)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_the_loss(name, count):
    model, params, tokens = problem_of(name)
    inputs, targets = model.split(tokens)
    found = pieces.objective(model, count, SURROGATES["quadratic"], BENDS["quadratic"])
    moving = trees.pick(params, model.moving)
    expected, loss = torch.func.grad_and_value(
        lambda part: cross_entropy(model.logits({**params, **part}, inputs), targets)
    )(moving)
    close(found.value(params, tokens), loss)
    gradient, value = found.gradient(params, tokens)
    assert list(gradient) == list(moving)
    close((gradient, value), (expected, loss))


@pytest.mark.parametrize("count", SEVERAL)
@pytest.mark.parametrize("form", SURROGATES)
@pytest.mark.parametrize("name", ["default", "tied", *KINDS])
def test_models_and_products_are_those_of_all_logits_and_of_every_block(name, form, count):
    model, anchor, tokens = problem_of(name)
    found = pieces.objective(model, count, SURROGATES[form], BENDS[form])
    curved = linearised(model.logits, SURROGATES[form], model.split)
    product = curvature(model.logits, BENDS[form], model.split)
    direction = noise(anchor, 7)
    params = trees.along(anchor, direction, 0.3)
    for names in (model.moving, *model.blocks.values()):
        part = trees.pick(params, names)
        close(found.curved(part, anchor, tokens), curved(part, anchor, tokens))
        along = trees.pick(direction, names)
        close(found.product(along, anchor, tokens), product(along, anchor, tokens))
