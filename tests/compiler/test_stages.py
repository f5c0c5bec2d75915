"""Compiled stages."""

import re
from functools import partial

import torch
from torch._inductor import metrics
from torch._inductor.utils import fresh_cache, run_and_get_code
from torch.utils.checkpoint import checkpoint

from gnflow.compiler.direct import watch_graphs
from gnflow.compiler.regions import Compiled, Compiler
from gnflow.compiler.stages import CompiledStages
from gnflow.curvature.executor import EAGER, X, keep
from gnflow.curvature.linearised import BENDS, SURROGATES
from gnflow.curvature.staged import build_objective
from gnflow.models.decoder import build_decoder
from gnflow.spec.model import Decoder


def multiply(power, weights, x):
    return (weights["w"] * x) ** power


def test_a_reverse_graph_is_compiled_with_its_forward_graph_so_that_its_seconds_count():
    """The function of a stage may be any callable, one without a name too."""
    regions = []

    def compile_region(name, function):
        regions.append(Compiled(name, function, "default", fullgraph=True))
        return regions[-1]

    function, moving, rest = partial(multiply, 3), {"w": torch.randn(5)}, {X: torch.randn(4, 5)}
    with fresh_cache():
        x, pullback, _ = CompiledStages(compile_region).pull(keep, function, moving, rest)
        known = metrics.generated_kernel_count
        slope = pullback(torch.ones_like(x))
    assert metrics.generated_kernel_count == known
    expected, pullback, _ = EAGER.pull(keep, function, moving, rest)
    torch.testing.assert_close((x, slope), (expected, pullback(torch.ones_like(x))))
    assert [(region.name, len(region.graphs), region.kernels) for region in regions] == [("stage.keep", 1, 2)]


def widen(weights, x):
    normal = x * torch.rsqrt(x.square().mean(-1, keepdim=True)) * weights["scale"]
    return torch.nn.functional.gelu(normal @ weights["up"]) @ weights["down"]


def test_what_a_few_products_make_again_is_not_kept():
    executor = CompiledStages(lambda name, function: Compiled(name, function, "default", fullgraph=True))
    moving = {"scale": torch.ones(5), "up": torch.randn(5, 24), "down": torch.randn(24, 5), X: torch.randn(7, 5)}
    with fresh_cache(), watch_graphs(True) as seen:
        x, pullback, _ = executor.pull(keep, widen, moving, {})
    expected, pull_eagerly, _ = EAGER.pull(keep, widen, moving, {})
    torch.testing.assert_close((x, pullback(torch.ones(7, 5))), (expected, pull_eagerly(torch.ones(7, 5))))
    [forward] = seen
    sizes = [memory[1].numel() for memory in forward.outputs if memory is not None]
    # The reverse pass reads the normalised features and makes them again from x. It reads normal @ up and its gelu too.
    # Both are kept, since gelu takes an erf.
    assert (sizes.count(7 * 5), sizes.count(7 * 24)) == (2, 2)  # x is kept, and the result is beside it


def test_what_a_checkpoint_computes_again_stays_so():
    def pass_twice(weights, x):
        inner = partial(checkpoint, lambda x: torch.nn.functional.gelu(x @ weights["a"]) @ weights["a"].T)
        return inner(x, use_reentrant=False) * 2

    executor = CompiledStages(lambda name, function: Compiled(name, function, "default", fullgraph=True))
    moving = {"a": torch.randn(5, 24), X: torch.randn(7, 5)}
    with fresh_cache(), watch_graphs(True) as seen:
        executor.pull(keep, pass_twice, moving, {})
    [forward] = seen
    assert 7 * 24 not in [memory[1].numel() for memory in forward.outputs if memory is not None]


def test_the_table_of_rotary_positions_is_computed_once_in_a_graph():
    model = build_decoder(Decoder.model_validate({"layers": 1, "width": 24, "heads": 2}), 7, "plain")
    objective = build_objective(model, SURROGATES["quadratic"], BENDS["quadratic"])
    curved = Compiler("default", fullgraph=True)("curved", objective.curved)
    with fresh_cache():
        _, codes = run_and_get_code(curved, model.init(0), model.init(1), torch.randint(7, (8, 33)))
    counts = [len(re.findall(r"\bcos\(", code)) for code in codes]
    assert sorted(counts, reverse=True)[:3] == [1, 1, 0]  # in the forward and in the reverse graph of a block


def test_a_convex_model_has_two_tensors_of_the_size_of_the_logits():
    """The logits, over which the probabilities are written, and their tangent, over which the cotangent is."""
    words, rows, time = 320, 4, 32
    model = build_decoder(Decoder.model_validate({"layers": 1, "width": 24, "heads": 2}), words, "plain")
    curved = Compiler("default", fullgraph=True)(
        "curved", build_objective(model, SURROGATES["quadratic"], BENDS["quadratic"]).curved
    )
    params, anchor = model.init(0), model.init(1)
    tokens = torch.randint(words, (rows, time + 1))
    with fresh_cache():
        _, codes = run_and_get_code(curved, params, anchor, tokens)
    shapes = [
        [int(size) for size in shape.split(",") if size.strip()]
        for code in codes
        for shape in re.findall(r"empty_strided_cpu\(\(([^)]*)\)", code)
    ]
    assert len([shape for shape in shapes if torch.Size(shape).numel() == rows * time * words]) == 2
