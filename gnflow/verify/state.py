"""What an optimizer may remember, and what it must declare."""

from collections import Counter
from collections.abc import Mapping
from typing import cast

import torch

from gnflow import trees
from gnflow.compiler.metering import Meter
from gnflow.objective import Params
from gnflow.optim.protocol import Region, eager, through
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.verify.problems import bowl
from gnflow.verify.subject import Make, Parts, Reached, advanced, initial, noise, parts, require, rounds, text

RECORDED = {"loss/train", "norm/update"}


def is_deterministic(experiment: Experiment, make: Make = parts) -> None:
    """Two runs from the same weights end with the same bits."""
    one, two = (advanced(experiment, *_on_a_bowl(experiment, make), rounds(experiment)) for _ in range(2))
    _require_same(one, two, "two runs from the same start differ")


def resumes_bit_for_bit(experiment: Experiment, make: Make = parts) -> None:
    """Stopped half way, with nothing kept but named tensors, and taken up by another program."""
    steps, half = rounds(experiment), rounds(experiment) // 2
    whole = advanced(experiment, *_on_a_bowl(experiment, make), steps)
    part = advanced(experiment, *_on_a_bowl(experiment, make), half)
    kept = trees.clone(trees.named_tensors(part.state))
    again, start = _on_a_bowl(experiment, make)
    template = again.optimizer.init(trees.mapped(lambda w: w.to("meta"), start))
    _require_form(_form(template), _form(part.state), "a checkpoint is read by its form on the meta device")
    state = trees.with_tensors(template, kept)
    resumed = advanced(experiment, again, part.params, steps - half, state, half)
    _require_same(whole, resumed, f"a run of {steps} steps that was resumed after {half} differs from a whole one")


def keeps_types_and_shapes(experiment: Experiment, make: Make = parts) -> None:
    """Of weights and state, in float32 and float64; metrics are single numbers, and the common ones are there."""
    for dtype in (torch.float32, torch.float64):
        made, start = _on_a_bowl(experiment, make, dtype)
        expected = _form((start, made.optimizer.init(trees.clone(start))))
        reached = advanced(experiment, made, start, 1)
        _require_form(_form((reached.params, reached.state)), expected, f"a step in {dtype} changes the form")
        rate = {"learning_rate"} if spec.has_rate(experiment.optimizer) else set()
        absent = sorted((RECORDED | rate) - set(reached.metrics))
        require(not absent, f"metrics lack {', '.join(absent)}")
        for name, value in reached.metrics.items():
            require(value.ndim == 0, f"metric `{name}` has shape {tuple(value.shape)}, expected a single number")


def counts_its_microbatches(experiment: Experiment, make: Make = parts) -> None:
    """One step touches every micro-batch it is given, and calls each region as often as where the plan counts it."""
    calls: Counter[str] = Counter()
    touched = set()

    def counted(name: str, region: Region, /, every: int | None = None) -> Region:
        def called(*arguments: object) -> object:
            calls[name] += 1
            return region(*arguments)

        return cast("Region", called)

    def noted(name: str, region: Region, /, every: int | None = None) -> Region:
        def called(*arguments: torch.Tensor) -> object:
            touched.add(_identity(arguments[-1]))
            return region(*arguments)

        return cast("Region", called)

    made = make(experiment, counted)
    start, optimizer = initial(experiment, made.network), made.optimizer
    batch = text(experiment, optimizer.microbatches, 0)
    optimizer.step(through(made.objective, noted), trees.clone(start), optimizer.init(trees.clone(start)), batch)
    given = {_identity(tokens) for tokens in batch}
    require(
        touched == given,
        f"{len(touched & given)} of {len(given)} micro-batches were used, and {len(touched - given)} not given",
    )
    meter = Meter()
    planned, empty = make(experiment, meter), trees.mapped(lambda w: w.to("meta"), start)
    with meter.storages:
        planned.optimizer.step(planned.objective, empty, planned.optimizer.init(empty), batch.to("meta"))
    require(
        calls == meter.counts,
        f"calls of regions: {_listed(calls)}; on the meta device, where the plan counts: {_listed(meter.counts)}",
    )


def _identity(tokens: torch.Tensor) -> object:
    """By which a micro-batch is known; one of images and text may be given again with fewer targets."""
    return tokens.data_ptr() if tokens.ndim == 2 else tuple(tokens[..., 0].flatten().tolist())


def _on_a_bowl(experiment: Experiment, make: Make, dtype: torch.dtype = torch.float32) -> tuple[Parts, Params]:
    """The parts on a quadratic whose slope differs from micro-batch to micro-batch, and where to start."""
    made = make(experiment, eager)
    start = trees.mapped(lambda w: w.to(dtype), initial(experiment, made.network))
    return made._replace(objective=bowl(trees.add(start, noise(start, 5)), 10.0, spread=0.5)), start


Form = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def _form(tree: object) -> Form:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in trees.named_tensors(tree).items()}


def _require_form(found: Form, expected: Form, what: str) -> None:
    for name in {**found, **expected}:
        require(
            found.get(name) == expected.get(name),
            f"{what}: `{name}` is {_kind(found.get(name))}, expected {_kind(expected.get(name))}",
        )


def _kind(form: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "absent" if form is None else f"{form[0]} {form[1]}".removeprefix("torch.")


def _require_same(one: Reached, two: Reached, what: str) -> None:
    expected = trees.named_tensors((two.params, two.state))
    for name, tensor in trees.named_tensors((one.params, one.state)).items():
        if not torch.equal(tensor, expected[name]):
            gap = (tensor.double() - expected[name].double()).abs().max().item()
            require(False, f"{what}: `{name}` by {gap:.3g}, expected not a bit")


def _listed(calls: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {calls[name]:g}" for name in sorted(calls))
