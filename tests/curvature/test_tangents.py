"""Jacobians both ways: a difference of two values stands for the exact tangent."""

import multimodal
import pytest
import torch
from multimodal import KINDS
from problems import VARIANTS, noise, small

from gnflow import trees
from gnflow.compiler.regions import Compiler
from gnflow.curvature import staged
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.curvature.staged import KEEP_ALL, Thrift
from gnflow.curvature.tangents import choose_step
from gnflow.models.decoder import build_decoder
from gnflow.spec.model import Decoder

ROUGH = {torch.float64: 1e-6, torch.float32: 5e-3}


def problem_of(name):
    return multimodal.small(name) if name in KINDS else small(name)


def off(found, expected):
    found, expected = (trees.flatten(trees.map_tensors(torch.Tensor.double, tree)) for tree in (found, expected))
    return ((found - expected).norm() / expected.norm()).item()


def echo(logits, tangent, targets):
    """A surrogate whose cotangent is the tangent, so that the gradient is J' J d."""
    return logits.sum(), tangent


def build_pair(model, surrogate=echo, thrift=KEEP_ALL):
    return (
        staged.build_objective(model, surrogate, BENDS["quadratic"], thrift, tangent=tangent)
        for tangent in ("exact", "difference")
    )


@pytest.mark.parametrize("dtype", ROUGH)
@pytest.mark.parametrize("name", [*VARIANTS, *KINDS])
def test_it_is_close_to_the_exact_tangent_of_everything_and_of_each_block_at_any_length(name, dtype):
    model, exact, tokens = problem_of(name)
    along, beside = build_pair(model)
    anchor, direction = trees.map_tensors(lambda w: w.to(dtype), exact), noise(exact, 7)
    for index, names in enumerate((model.moving, *model.moving_blocks.values())):
        moved = trees.scale(trees.pick(direction, names), (0.3, 10.0, 1e-4)[index % 3])
        params = trees.map_tensors(lambda w: w.to(dtype), trees.add(trees.pick(exact, names), moved))
        there = trees.map_tensors(torch.Tensor.double, params)
        expected, _ = along.curved(there, trees.map_tensors(torch.Tensor.double, anchor), tokens)
        found, _ = beside.curved(params, anchor, tokens)
        assert 0 < off(found, expected) < ROUGH[dtype]


def test_without_a_displacement_there_is_no_tangent():
    model, anchor, tokens = small()
    _, beside = build_pair(model)
    for dtype in ROUGH:
        point = {name: w.to(dtype) for name, w in anchor.items()}
        gradient, _ = beside.curved(trees.clone(point), point, tokens)
        assert all(torch.equal(slope, torch.zeros_like(slope)) for slope in gradient.values())


def test_from_the_origin_it_goes_a_step_all_the_same():
    d = torch.tensor([1.0, -2.0, 0.5]).double()
    h = choose_step({"w": d}, {"w": torch.zeros(3, dtype=torch.float64)})
    torch.testing.assert_close(torch.sin(h * d) / h, d, rtol=1e-6, atol=0)


@pytest.mark.parametrize("thrift", [Thrift(3), Thrift(1, recomputed=True)])
@pytest.mark.parametrize("name", ["default", *KINDS])
def test_in_pieces_and_with_blocks_taken_again_it_is_as_close(name, thrift):
    model, anchor, tokens = problem_of(name)
    exact, rough = build_pair(model, SURROGATES["quadratic"], thrift)
    params = trees.move_along(trees.pick(anchor, model.moving), trees.pick(noise(anchor, 7), model.moving), 0.3)
    gradient, value = rough.curved(params, anchor, tokens)
    expected, at = exact.curved(params, anchor, tokens)
    torch.testing.assert_close(value, at, rtol=1e-6, atol=0)
    assert 0 < trees.norm(trees.subtract(gradient, expected)) < 1e-6 * trees.norm(expected)


@pytest.mark.faults
def test_compiled_it_is_what_it_is_eagerly_with_fused_attention():
    shape = Decoder.model_validate({"layers": 2, "width": 16, "heads": 2})
    model = build_decoder(shape, 32, "flash")
    _, beside = build_pair(model, SURROGATES["quadratic"])
    curved, compiler = beside.curved, Compiler("default", fullgraph=True)
    compiled, anchor = compiler("curved", curved), model.init(0)
    for seed in (0, 1):
        tokens = torch.randint(32, (2, 17), generator=torch.Generator().manual_seed(seed))
        params = trees.move_along(anchor, noise(anchor, seed), 0.1)
        (found, value), (expected, at) = compiled(params, anchor, tokens), curved(params, anchor, tokens)
        torch.testing.assert_close(value, at, rtol=1e-3, atol=0)
        assert trees.norm(trees.subtract(found, expected)) < 5e-3 * trees.norm(expected)
        anchor = params
    assert set(compiler.count_graphs().values()) == {1}
