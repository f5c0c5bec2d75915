"""Convex models in bfloat16: errors of rounding alone, around the rounded anchor; sums and logits in float32."""

import multimodal
import pytest
import torch
from multimodal import KINDS, weights_and_choice
from oracles import Dense
from problems import VARIANTS, Problem, build, noise, small

from gnflow import trees
from gnflow.compiler.build import reduce_precision
from gnflow.compiler.regions import Compiler
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.curvature.staged import Thrift, build_objective
from gnflow.models.decoder import build_decoder
from gnflow.models.model import Model
from gnflow.objective import Objective, Params
from gnflow.optim.means import average_gradient
from gnflow.optim.protocol import compile_regions
from gnflow.spec.model import Decoder

BOUND = 0.03  # about 4 * 2**-7, relative to the norm
NARROW = 2 * BOUND  # sums over 8 numbers average fewer roundings
SEVERAL = [Thrift(1), Thrift(4, recomputed=True)]


def rounded(model: Model, form: str = "quadratic", thrift: Thrift = SEVERAL[0]) -> Objective:
    lower = reduce_precision(model, torch.bfloat16)
    return build_objective(model, SURROGATES[form], BENDS[form], thrift, lower)


def wide(variant: str) -> Problem:
    spec = Decoder.model_validate({"layers": 2, "width": 32, "heads": 2, **VARIANTS[variant], "hidden": 64})
    model = build_decoder(spec, 13, "plain")
    params = trees.move_along(model.init(0), noise(model.init(0), 1), 0.02)
    return Problem(model, trees.map_tensors(torch.Tensor.double, params), small().tokens)


def single(tree: Params) -> Params:
    return trees.map_tensors(torch.Tensor.float, tree)


def error(found: Params, expected: Params) -> float:
    return (trees.norm(trees.subtract(found, expected)) / trees.norm(expected)).item()


def double(tree: Params) -> Params:
    assert {w.dtype for w in tree.values()} == {torch.float32}
    return trees.map_tensors(torch.Tensor.double, tree)


@pytest.mark.parametrize("name", ["default", "tied", "grouped head norm", *KINDS])
@pytest.mark.parametrize("form", SURROGATES)
def test_gradients_and_products_are_the_dense_ones_within_rounding(form, name):
    several = name in KINDS
    model, params, tokens = problem = multimodal.small(name) if several else wide(name)
    bound = NARROW if several else BOUND
    anchor = single(params)
    dense = Dense(problem, *weights_and_choice(name, tokens)) if several else Dense(problem)
    for scale, thrift in ((0.3, SEVERAL[0]), (0.01, SEVERAL[1])):
        point = single(trees.move_along(params, noise(params, 7), scale))
        found, _ = rounded(model, form, thrift).curved(point, anchor, tokens)
        expected, _ = getattr(dense, form)(double(point))
        assert 0 < error(double(found), dense.tree(expected)) < bound
    if form != "prox_linear":
        product = rounded(model, form).product(noise(anchor, 7), anchor, tokens)
        moved, touching = (getattr(dense, form)(at)[0] for at in (trees.add(params, noise(params, 7)), params))
        expected = dense.tree(moved - touching)
        assert 0 < error(double(product), trees.pick(expected, product)) < bound


def test_of_a_block_they_are_as_close():
    model, params, tokens = problem = wide("tied")
    dense, moved = Dense(problem), single(trees.move_along(params, noise(params, 7), 0.1))
    for names in model.blocks.values():
        found, _ = rounded(model).curved(trees.pick(moved, names), single(params), tokens)
        expected, _ = dense.quadratic({**params, **double(trees.pick(moved, names))})
        assert 0 < error(double(found), trees.pick(dense.tree(expected), names)) < BOUND


def test_the_displacement_leads_from_the_rounded_anchor():
    """The anchor is rounded and nothing else. At the anchor itself the model then bends back to the true slope."""
    model, params, tokens = problem = small()

    def with_rounded_weights(function):
        def run(weights, x):
            return function({n: w + (w.bfloat16() - w).detach() for n, w in weights.items()}, x)

        return run

    stages = [stage._replace(function=with_rounded_weights(stage.function)) for stage in (*model.layers, model.head)]
    lower = model._replace(layers=tuple(stages[:-1]), head=stages[-1])
    found, _ = build_objective(model, SURROGATES["quadratic"], BENDS["quadratic"], reduced=lower).curved(
        params, params, tokens
    )
    nearest = {name: w.bfloat16().double() for name, w in params.items()}
    dense = Dense(problem._replace(params=nearest))
    (expected, _), (unbent, _) = dense.quadratic(params), dense.quadratic(nearest)
    bend = torch.linalg.vector_norm(expected - unbent)
    assert torch.linalg.vector_norm(dense.flat(found) - expected) < 0.01 * bend


def test_logits_losses_and_sums_are_in_float32(monkeypatch):
    seen = {}

    def note(logits, tangent, targets):
        value, cotangent = SURROGATES["quadratic"](logits, tangent, targets)
        seen["head"] = {x.dtype for x in (logits, tangent, value, cotangent)}
        return value, cotangent

    model, params, tokens = small()
    anchor, lower = single(params), reduce_precision(model, torch.bfloat16)
    within = []

    def noting(stage):
        def run(weights, x):
            within.append({x.dtype, *(w.dtype for w in weights.values())})
            return stage.function(weights, x)

        return stage._replace(function=run)

    inner = reduce_precision(model._replace(layers=tuple(map(noting, model.layers))), torch.bfloat16)
    build_objective(model, note, BENDS["quadratic"], reduced=inner).curved(anchor, anchor, tokens)
    assert seen["head"] == {torch.float32}
    assert within[1:] == [{torch.bfloat16}] * 2  # blocks: weights and activations

    found = build_objective(model, SURROGATES["quadratic"], BENDS["quadratic"], reduced=lower)
    batch = torch.stack((tokens, tokens.flip(0), tokens.roll(1, 0)))
    gradient, value = average_gradient(found.build_model(anchor), single(params), batch)
    parts = [found.curved(single(params), anchor, each)[0] for each in batch]
    assert value.dtype == torch.float32
    for name, total in gradient.items():
        assert total.dtype == torch.float32
        torch.testing.assert_close(total, sum(part[name] for part in parts) / 3, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("thrift", SEVERAL)
@pytest.mark.parametrize("form", SURROGATES)
@pytest.mark.parametrize("tangent", ["exact", "difference"])
def test_the_value_alone_is_the_value_that_comes_with_the_gradient(tangent, form, thrift):
    model, anchor, tokens = small("tied")
    params = trees.move_along(anchor, noise(anchor, 7), 0.3)
    objective = build_objective(model, SURROGATES[form], BENDS[form], thrift, tangent=tangent)
    for part in (params, trees.pick(params, model.blocks.get("head", ["norm.scale"]))):
        expected = objective.curved(part, anchor, tokens)[1]
        found = objective.curved_value(part, anchor, tokens)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(objective.build_model(anchor).value(part, tokens), found)
    assert torch.equal(rounded(model, form, thrift).curved_value(params, anchor, tokens),
                       build(model, form, thrift).curved_value(params, anchor, tokens))  # fmt: skip


@pytest.mark.faults
def test_compiled_they_are_what_they_are_eagerly():
    model, params, _ = small()
    objective, compiler = rounded(model), Compiler("default", fullgraph=True)
    compiled, anchor = compile_regions(objective, compiler), single(params)
    for seed in (1, 2):
        tokens = torch.randint(13, (4, 6), generator=torch.Generator().manual_seed(seed))
        point = trees.move_along(anchor, noise(anchor, seed), 0.1)
        (found, _), (expected, _) = (each.curved(point, anchor, tokens) for each in (compiled, objective))
        assert error(found, expected) < NARROW
        ours, theirs = (each.build_model(anchor).value(point, tokens) for each in (compiled, objective))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
        anchor = point
    assert set(compiler.count_graphs().values()) == {1}
