"""Check of the state that an optimizer keeps and of the costs that it declares."""

from collections import Counter
from collections.abc import Mapping
from typing import cast

import torch

from gnflow import trees
from gnflow.compiler.metering import Meter
from gnflow.optim.protocol import Region, compile_regions
from gnflow.spec.experiment import Experiment
from gnflow.spec.traits import has_rate
from gnflow.verify.problems import build_on_bowl
from gnflow.verify.subject import (
    Make,
    Outcome,
    advance,
    build_parts,
    count_steps,
    draw_start,
    draw_text,
    require,
)

RECORDED = {"loss/train", "norm/update"}


def check_determinism(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that two runs from the same weights end with the same bits."""
    one, two = (advance(experiment, *build_on_bowl(experiment, make), count_steps(experiment)) for _ in range(2))
    _require_same(one, two, "two runs from the same start differ")


def check_resumption(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that a run ends the same if it stops half way and goes on elsewhere from its named tensors alone."""
    steps, half = count_steps(experiment), count_steps(experiment) // 2
    whole = advance(experiment, *build_on_bowl(experiment, make), steps)
    part = advance(experiment, *build_on_bowl(experiment, make), half)
    kept = trees.clone(trees.name_tensors(part.state))
    again, start = build_on_bowl(experiment, make)
    template = again.optimizer.init(trees.map_tensors(lambda w: w.to("meta"), start))
    _require_form(
        _describe_tensors(template),
        _describe_tensors(part.state),
        "a checkpoint is read by its form on the meta device",
    )
    state = trees.fill_tensors(template, kept)
    resumed = advance(experiment, again, part.params, steps - half, state, half)
    _require_same(whole, resumed, f"a run of {steps} steps that was resumed after {half} differs from a whole one")


def check_types_and_shapes(experiment: Experiment, make: Make = build_parts) -> None:
    """Check types and shapes of weights and state in float32 and float64.

    Metrics must be single numbers and include the common ones.
    """
    for dtype in (torch.float32, torch.float64):
        made, start = build_on_bowl(experiment, make, dtype)
        expected = _describe_tensors((start, made.optimizer.init(trees.clone(start))))
        reached = advance(experiment, made, start, 1)
        _require_form(
            _describe_tensors((reached.params, reached.state)), expected, f"a step in {dtype} changes the form"
        )
        rate = {"learning_rate"} if has_rate(experiment.optimizer) else set()
        absent = sorted((RECORDED | rate) - set(reached.metrics))
        require(not absent, f"the metrics lack {', '.join(absent)}")
        for name, value in reached.metrics.items():
            require(value.ndim == 0, f"metric `{name}` has shape {tuple(value.shape)}, expected a single number")


def check_microbatch_count(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that a step uses every micro-batch that it is given, and calls each region as often as the plan counts."""
    calls: Counter[str] = Counter()
    touched = set()

    def count(name: str, region: Region, /, every: int | None = None) -> Region:
        def call(*arguments: object) -> object:
            calls[name] += 1
            return region(*arguments)

        return cast("Region", call)

    def note(name: str, region: Region, /, every: int | None = None) -> Region:
        def call(*arguments: torch.Tensor) -> object:
            touched.add(_identify(arguments[-1]))
            return region(*arguments)

        return cast("Region", call)

    made = make(experiment, count)
    start, optimizer = draw_start(experiment, made.network), made.optimizer
    batch = draw_text(experiment, optimizer.microbatches, 0)
    optimizer.step(compile_regions(made.objective, note), trees.clone(start), optimizer.init(trees.clone(start)), batch)
    given = {_identify(tokens) for tokens in batch}
    require(
        touched == given,
        f"a step used {len(touched & given)} of {len(given)} given micro-batches, and {len(touched - given)} others",
    )
    meter = Meter()
    planned, empty = make(experiment, meter), trees.map_tensors(lambda w: w.to("meta"), start)
    with meter.storages:
        planned.optimizer.step(planned.objective, empty, planned.optimizer.init(empty), batch.to("meta"))
    # A region that is due once in several calls may be due more often in a first step than on average.
    due = calls.keys() == meter.counts.keys() and all(
        meter.calls.get(name, most) <= calls[name] <= most for name, most in meter.counts.items()
    )
    require(
        due,
        f"calls of regions: {_list_calls(calls)}; "
        f"on the meta device, where the plan counts: {_list_calls(meter.counts)}",
    )


def _identify(tokens: torch.Tensor) -> object:
    """Return a key of a micro-batch. One of images and text keeps its key if some of its targets are removed."""
    return tokens.data_ptr() if tokens.ndim == 2 else tuple(tokens[..., 0].flatten().tolist())


Form = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def _describe_tensors(tree: object) -> Form:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in trees.name_tensors(tree).items()}


def _require_form(found: Form, expected: Form, what: str) -> None:
    for name in {**found, **expected}:
        require(
            found.get(name) == expected.get(name),
            f"{what}: `{name}` is {_describe_form(found.get(name))}, expected {_describe_form(expected.get(name))}",
        )


def _describe_form(form: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "absent" if form is None else f"{form[0]} {form[1]}".removeprefix("torch.")


def _require_same(one: Outcome, two: Outcome, what: str) -> None:
    expected = trees.name_tensors((two.params, two.state))
    for name, tensor in trees.name_tensors((one.params, one.state)).items():
        if not torch.equal(tensor, expected[name]):
            gap = (tensor.double() - expected[name].double()).abs().max().item()
            require(False, f"{what}: `{name}` differs by {gap:.3g}, expected identical bits")


def _list_calls(calls: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {calls[name]:g}" for name in sorted(calls))
