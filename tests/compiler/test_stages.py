"""Compiled stages."""

from functools import partial

import torch
from torch._inductor import metrics
from torch._inductor.utils import fresh_cache

from gnflow.compiler.regions import Compiled
from gnflow.compiler.stages import CompiledStages
from gnflow.curvature.executor import EAGER, X, keep


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
