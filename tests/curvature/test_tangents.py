"""Jacobians both ways: a difference of two values stands for the exact tangent."""

import multimodal
import pytest
import torch
from multimodal import KINDS
from problems import VARIANTS, noise, small

from gnflow import trees
from gnflow.curvature import staged
from gnflow.curvature.linearised import BENDS, SURROGATES, linearise
from gnflow.curvature.staged import Thrift
from gnflow.curvature.tangents import push_by_difference, push_exactly
from gnflow.models.decoder import decoder
from gnflow.spec.model import Decoder

ROUGH = {torch.float64: 1e-6, torch.float32: 5e-3}


def problem_of(name):
    return multimodal.small(name) if name in KINDS else small(name)


def off(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("dtype", ROUGH)
@pytest.mark.parametrize("name", [*VARIANTS, *KINDS])
def test_it_is_close_to_the_exact_tangent_of_everything_and_of_each_block_at_any_length(name, dtype):
    model, exact, tokens = problem_of(name)
    inputs, _ = model.split(tokens)
    anchor, direction = trees.map_tensors(lambda w: w.to(dtype), exact), noise(exact, 7)
    for index, names in enumerate((model.moving, *model.moving_blocks.values())):
        along = trees.scale(trees.pick(direction, names), (0.3, 10.0, 1e-4)[index % 3])
        _, pull, expected = push_exactly(lambda p: model.logits(p, inputs), exact, along)
        found = push_by_difference(
            lambda p: model.logits(p, inputs), anchor, trees.map_tensors(lambda w: w.to(dtype), along)
        )
        value, pullback, tangent = found
        assert 0 < off(tangent, expected) < ROUGH[dtype]
        (expected,), (gradient,) = pull(value.double()), pullback(value)
        torch.testing.assert_close(gradient, expected, check_dtype=False, atol=1e-4, rtol=1e-3)


def test_without_a_displacement_there_is_no_tangent():
    model, anchor, tokens = small()
    still = trees.zeros(anchor)
    for dtype in ROUGH:
        point, nothing = ({name: w.to(dtype) for name, w in tree.items()} for tree in (anchor, still))
        _, _, tangent = push_by_difference(lambda p: model.logits(p, model.split(tokens)[0]), point, nothing)
        assert torch.equal(tangent, torch.zeros_like(tangent))


def test_from_the_origin_it_goes_a_step_all_the_same():
    w = {"w": torch.zeros(3, dtype=torch.float64)}
    _, _, tangent = push_by_difference(lambda p: torch.sin(p["w"]), w, {"w": torch.tensor([1.0, -2.0, 0.5]).double()})
    torch.testing.assert_close(tangent, torch.tensor([1.0, -2.0, 0.5]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("thrift", [Thrift(3), Thrift(1, recomputed=True)])
@pytest.mark.parametrize("name", ["default", *KINDS])
def test_in_pieces_and_with_blocks_taken_again_it_is_as_close(name, thrift):
    model, anchor, tokens = problem_of(name)
    exact, rough = (
        staged.objective(model, SURROGATES["quadratic"], BENDS["quadratic"], thrift, tangent=tangent)
        for tangent in ("exact", "difference")
    )
    params = trees.move_along(trees.pick(anchor, model.moving), trees.pick(noise(anchor, 7), model.moving), 0.3)
    gradient, value = rough.curved(params, anchor, tokens)
    expected, at = exact.curved(params, anchor, tokens)
    torch.testing.assert_close(value, at, rtol=1e-6, atol=0)
    assert 0 < trees.norm(trees.subtract(gradient, expected)) < 1e-6 * trees.norm(expected)


def test_compiled_it_is_what_it_is_eagerly_with_fused_attention():
    shape = Decoder.model_validate({"layers": 2, "width": 16, "heads": 2})
    model = decoder(shape, 32, "flash")
    curved = linearise(model.logits, SURROGATES["quadratic"], model.split, push_by_difference)
    compiled, anchor = torch.compile(curved, fullgraph=True, dynamic=False), model.init(0)
    for seed in (0, 1):
        tokens = torch.randint(32, (2, 17), generator=torch.Generator().manual_seed(seed))
        params = trees.move_along(anchor, noise(anchor, seed), 0.1)
        (found, value), (expected, at) = compiled(params, anchor, tokens), curved(params, anchor, tokens)
        torch.testing.assert_close(value, at, rtol=1e-3, atol=0)
        assert trees.norm(trees.subtract(found, expected)) < 5e-3 * trees.norm(expected)
        anchor = params
