"""Flash attention's tangent against that of plain attention, which torch derives."""

from itertools import product

import pytest
import torch
from problems import VARIANTS, VOCABULARY, build, noise, small
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from gnflow import trees
from gnflow.compiler.regions import Compiler
from gnflow.curvature.hessian import make_hessian_product
from gnflow.curvature.linearised import SURROGATES
from gnflow.curvature.staged import Thrift
from gnflow.models import trunk
from gnflow.models.attention import attend_flash, attend_plain
from gnflow.models.attention_tangent import TILE, compute_attention_tangent, compute_in_tiles
from gnflow.models.decoder import build_decoder
from gnflow.models.loss import compute_cross_entropy
from gnflow.spec.model import Decoder

SHAPES = [(2, 2, 5, 8), (1, 1, 1, 4), (1, 3, TILE, 16), (2, 1, TILE + 1, 24), (1, 2, 2 * TILE + 2, 48)]
"""(rows, heads, time, size)"""


def drawn(shape, count=6, dtype=torch.float64):
    """Of that shape, laid out (rows, time, heads, size) as the trunk does."""
    rows, heads, time, size = shape
    return [torch.randn(rows, time, heads, size, dtype=dtype).transpose(1, 2) for _ in range(count)]


def pushed(attention, parts):
    return torch.func.jvp(attention, tuple(parts[:3]), tuple(parts[3:]))


def loss(problem, params):
    inputs, targets = problem.model.split(problem.tokens)
    return compute_cross_entropy(problem.model.compute_logits(params, inputs), targets)


def require_the_tangent(tangent, parts, rtol=1e-10, atol=1e-12):
    out, expected = pushed(attend_plain, parts)
    torch.testing.assert_close(tangent(*parts, out), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_tangent_of_plain_attention(shape):
    require_the_tangent(compute_attention_tangent, drawn(shape))
    require_the_tangent(compute_attention_tangent, drawn(shape, dtype=torch.float32), rtol=1e-4, atol=1e-5)


WRONG = {
    "weights that need not sum to one": lambda *parts: compute_in_tiles(*parts[:6], torch.zeros_like(parts[6])),
    "values stand still": lambda *parts: compute_in_tiles(*parts[:5], torch.zeros_like(parts[5]), parts[6]),
    "keys stand still": lambda *parts: compute_in_tiles(*parts[:4], torch.zeros_like(parts[4]), *parts[5:]),
    "queries stand still": lambda *parts: compute_in_tiles(*parts[:3], torch.zeros_like(parts[3]), *parts[4:]),
    "the last tile is left out": lambda *parts: compute_in_tiles(*parts).index_fill(2, torch.tensor(TILE), 0.0),
    "one in ten thousand": lambda *parts: 1.0001 * compute_in_tiles(*parts),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_tangent_is_not(wrong):
    with pytest.raises(AssertionError):
        require_the_tangent(WRONG[wrong], drawn((1, 2, TILE + 1, 8)), rtol=1e-6)


@pytest.mark.parametrize("moving", [moving for moving in product((False, True), repeat=3) if any(moving)])
def test_what_has_no_tangent_stands_still(moving):
    *point, dquery, dkey, dvalue = drawn((2, 2, 7, 8))
    direction = tuple(d for d, moves in zip((dquery, dkey, dvalue), moving, strict=True) if moves)

    def of(attention):
        def function(*given):
            left = iter(given)
            return attention(*(next(left) if moves else at for at, moves in zip(point, moving, strict=True)))

        return torch.func.jvp(function, tuple(at for at, m in zip(point, moving, strict=True) if m), direction)

    torch.testing.assert_close(of(attend_flash), of(attend_plain), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gauss_newtons_model_is_that_of_plain_attention(variant):
    one, two = small(variant), small(variant, "flash")
    params = trees.move_along(one.params, noise(one.params, 7), 0.3)
    for objective, names in product(SURROGATES, (tuple(params), *one.model.blocks.values())):
        part = trees.pick(params, names)
        expected, found = (
            build(problem.model, objective).curved(part, problem.params, problem.tokens) for problem in (one, two)
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_blocks_that_are_taken_again_have_the_same_tangent():
    one, two = small(), small(kernel="flash")
    params = trees.move_along(one.params, noise(one.params, 7), 0.3)
    expected, found = (
        build(problem.model, thrift=Thrift(2, recomputed=True)).curved(params, problem.params, problem.tokens)
        for problem in (one, two)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.faults
def test_compiled_it_is_one_graph_for_all_weights():
    model = build_decoder(Decoder(layers=1, width=8, heads=2, hidden=10, key_value_heads=1), VOCABULARY, "flash")
    anchor, tokens = model.init(0), torch.randint(VOCABULARY, (2, TILE + 8))
    eager, compiler = build(model).curved, Compiler("default", fullgraph=True)
    compiled = compiler("curved", eager)
    for distance in (0.1, 0.3):
        params = trees.move_along(anchor, noise(anchor, 7), distance)
        with torch.compiler.set_stance("default" if distance == 0.1 else "fail_on_recompile"):
            found = compiled(params, anchor, tokens)
        torch.testing.assert_close(found, eager(params, anchor, tokens), rtol=1e-3, atol=1e-6)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in elements."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return made


def largest(function, time):
    parts = drawn((1, 1, time, 8), 7, torch.float32)
    with Largest() as seen:
        function(*parts)
    return seen.elements


def test_memory_grows_with_time_and_not_with_its_square():
    long = 4 * TILE
    assert largest(compute_in_tiles, long) == TILE * long
    assert largest(compute_in_tiles, 2 * long) == TILE * 2 * long
    assert largest(lambda *parts: pushed(attend_flash, parts[:6]), long) == long * 8
    assert largest(lambda *parts: pushed(attend_plain, parts[:6]), long) == long**2


def test_without_a_tangent_nothing_but_the_fused_kernel_is_called(monkeypatch):
    def bare(query, key, value):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    def graph():
        problem = small(kernel="flash")
        return make_fx(torch.func.grad(lambda params: loss(problem, params)))(problem.params).code

    ours = graph()
    monkeypatch.setitem(trunk.KERNELS, "flash", bare)
    assert ours == graph()
    assert "scaled_dot_product" in ours


def test_no_derivative_of_the_tangent_is_made_up():
    problem = small(kernel="flash")
    direction = noise(problem.params, 3)

    def slope(params):
        return torch.func.jvp(lambda point: loss(problem, point), (params,), (direction,))[1]

    with pytest.raises(NotImplementedError, match="forward AD"):
        make_hessian_product(lambda params, _: loss(problem, params))(direction, problem.params, problem.tokens)

    with pytest.raises(NotImplementedError, match="forward AD"):
        torch.func.jvp(slope, (problem.params,), (direction,))
    with pytest.raises(RuntimeError, match="derivative for aten::heaviside is not implemented"):
        torch.func.grad(slope)(problem.params)


@pytest.mark.parametrize("number", [0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-310])
def test_the_tangent_keeps_its_bits(number):
    parts = [torch.ones(1, 1, 1, 1, dtype=torch.float64) for _ in range(7)]
    parts[5] = torch.full_like(parts[5], number)
    parts[6] = torch.zeros_like(parts[6])
    found, expected = compute_attention_tangent(*parts), compute_in_tiles(*parts)
    assert found.view(torch.int64) == expected.view(torch.int64)
