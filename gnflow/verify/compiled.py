"""Check that compiled regions equal their eager twins for any weights and are compiled once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler.regions import Compiler
from gnflow.objective import Watch
from gnflow.optim.protocol import Jit, Region
from gnflow.spec.experiment import Experiment
from gnflow.spec.optimizer import GaussNewton
from gnflow.verify.subject import Make, advance, build_parts, count_steps, draw_noise, draw_start, require

ALLOWED = {"float32": 1e-3, "tf32": 1e-3, "bfloat16": 5e-2}
ROUGH = 1e-2  # for regions `curved` whose tangent is a difference, which enlarges rounding
SMALLEST = 1e-3  # a tensor, or a change of weights, that is smaller is compared as if it had this size


def check_compiled_regions(experiment: Experiment, make: Make = build_parts) -> None:
    """Compare each region with its eager twin on the same arguments, from two sets of weights.

    Each region must be a single graph that is compiled once. In bfloat16 a graph rounds less often than its eager twin
    and is nearer to the twin in float32, so it has to be close to one of them.
    """
    mode = "default" if experiment.compile.mode == "off" else experiment.compile.mode
    compiler = Compiler(mode, fullgraph=True)
    method = experiment.optimizer
    rough = isinstance(method, GaussNewton) and method.tangent == "difference"
    allowed = ALLOWED[experiment.training.precision]
    exact: dict[str, Callable[..., object]] = {}
    if experiment.training.precision == "bfloat16":
        make(_set_precision(experiment, "float32"), _collect_in(exact))

    def pair(name: str, region: Region, /, every: int | None = None) -> Region:
        if every is not None:
            return region
        compiled = compiler(name, region)

        def call_both(*arguments: object) -> object:
            twins = [twin(*_copy(arguments)) for twin in (region, exact.get(name)) if twin is not None]
            found = _call_unbroken(name, compiled, arguments)
            limit = max(allowed, ROUGH) if rough and name.startswith("curved") else allowed
            _require_close(name, found, twins, limit, arguments)
            return found

        return call_both  # type: ignore[return-value]  # a wrapper of the same signature

    made = make(experiment, pair)
    first = draw_start(experiment, made.network)
    for start, steps in ((first, count_steps(experiment)), (trees.move_along(first, draw_noise(first, 6), 0.3), 2)):
        reached = None
        for step in range(steps):
            before = (start, None) if reached is None else (reached.params, reached.state)
            reached = advance(experiment, made, before[0], 1, before[1], step)
            for region in compiler.regions:
                again = len(region.compilations) - 1
                require(again < 1, f"region `{region.name}` was compiled again at step {step}, expected one graph")


def _call_unbroken(name: str, compiled: Callable[..., object], arguments: tuple[object, ...]) -> object:
    try:
        return compiled(*arguments)
    except torch._dynamo.exc.Unsupported as unsupported:
        reason = str(unsupported).strip().splitlines()[0]
        require(False, f"region `{name}` breaks into several graphs: {reason}")
        raise


def _set_precision(experiment: Experiment, precision: str) -> Experiment:
    training = experiment.training.model_copy(update={"precision": precision})
    return experiment.model_copy(update={"training": training})


def _collect_in(regions: dict[str, Callable[..., object]]) -> Jit:
    """Make a `Jit` that returns every region as it is, and keeps it."""

    def keep(name: str, region: Region, /, every: int | None = None) -> Region:
        regions[name] = region
        return region

    return keep


def _copy(arguments: tuple[object, ...]) -> list[object]:
    return [each if isinstance(each, Watch) else trees.clone(each) for each in arguments]


def _require_close(
    name: str, found: object, twins: Sequence[object], allowed: float, arguments: Sequence[object]
) -> None:
    """Require that every tensor of `found` is within `allowed` of that of a twin, relative to its size.

    The size of new weights is that of their change: an update is a thousandth of the weights or less.
    """
    ours, expected = trees.name_tensors(found), [trees.name_tensors(twin) for twin in twins]
    starts = [each for each in arguments if isinstance(each, dict)]
    for key, tensor in expected[0].items():
        if not tensor.numel():
            continue
        before = [start for each in starts if isinstance(start := each.get(key.partition("/")[2]), Tensor)]
        error = min(_compare(ours[key], twin[key], before) for twin in expected)
        require(
            error <= allowed,
            f"region `{name}`, compiled, differs from eager by {error:.2g} of the size of `{key}`; allowed {allowed:g}",
        )


def _compare(found: Tensor, expected: Tensor, before: Sequence[Tensor]) -> float:
    """Return the largest difference relative to the largest entry, or to that of a change if that makes it larger.

    New weights may be rounded otherwise, which counts against their size and not against their change.
    """
    exact = expected.double()
    error = (found.double() - exact).abs()
    relative = [error.max().item() / max(exact.abs().max().item(), SMALLEST)]
    for start in before:
        if start.shape == expected.shape and expected.is_floating_point():
            beyond = (error - 2 * torch.finfo(expected.dtype).eps * exact.abs()).max().item()
            relative.append(beyond / max((exact - start.double()).abs().max().item(), SMALLEST))
    return max(relative)
