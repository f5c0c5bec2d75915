"""The subject of the checks: a small copy of an experiment, and the functions that are built from it."""

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler import build, methods, plan
from gnflow.compiler.blocks import divide_by_block, find_blocks
from gnflow.models.modality import find_groups
from gnflow.models.model import Model
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.protocol import AnyState, Jit, Optimizer
from gnflow.spec import optimizer as spec
from gnflow.spec.data import PretrainedTokenizer, Text, Tokens
from gnflow.spec.experiment import Experiment
from gnflow.spec.model import Transformer
from gnflow.spec.multimodal import VQ, Data, Digits, Multimodal
from gnflow.spec.parts import Part
from gnflow.spec.schedules import ScheduleKind
from gnflow.spec.search import NoSearch
from gnflow.spec.training import Scratch

WIDTH, VOCABULARY, CONTEXT, ROWS, STEPS = 16, 13, 8, 2, 12
TEXT, CODES = 3, 4  # ids of multimodal data, apart from marks
MICROBATCHES, LEAVES, INNER_STEPS, ITERATIONS, SEARCHED, WARMUP = 6, 4, 4, 8, 2, 2  # upper limits

OVERLAPPING = 11  # with `blocks: prefix`, solves overlap from this number of layers on


class Parts(NamedTuple):
    """The functions that an experiment is made of, before there are any weights."""

    network: Model
    objective: Objective
    optimizer: Optimizer


Scheduled = TypeVar("Scheduled", bound=ScheduleKind)
Make: TypeAlias = Callable[[Experiment, Jit], Parts]


class CheckFailed(Exception):
    """A claim does not hold. The message has the value that was found and the value that was expected."""


def build_parts(experiment: Experiment, jit: Jit) -> Parts:
    """Build the same parts as a run has."""
    network = build.build_model(experiment, build.choose_kernel(experiment))
    problem = build.build_objective(network, experiment, recomputed=experiment.compile.activations is not None)
    optimizer = methods.build_optimizer(experiment.optimizer, network, experiment.training.steps or STEPS, jit)
    blocks = find_blocks(network, getattr(experiment.optimizer, "blocks", "layer"))
    return Parts(network, divide_by_block(problem, blocks, jit), optimizer)


def shrink(experiment: Experiment) -> Experiment:
    """Make every size and count of an experiment small and keeps every other choice.

    Rules by parameter name that own no parameter of the smaller model are left out.
    """
    shape = experiment.model
    model = shape.smaller(WIDTH)
    if getattr(experiment.optimizer, "blocks", None) == "prefix" and isinstance(shape, Transformer):
        model = model.model_copy(update={"layers": min(shape.layers, OVERLAPPING)})
    part = model.side / shape.side
    training = {"steps": STEPS, "tokens": None, "rows": ROWS, "start": Scratch(), "target": None}
    small = experiment.model_copy(
        update={
            "model": model,
            "data": _shrink_data(experiment.data),
            "training": experiment.training.model_copy(update=training),
        }
    )
    names = list(build.build_model(small, "plain").moving)
    method = experiment.optimizer
    if isinstance(method, spec.GaussNewton):
        search = method.search
        if not isinstance(search, NoSearch):
            search = search.model_copy(update={"microbatches": min(search.microbatches, SEARCHED)})
        smaller: spec.Optimizer = method.model_copy(
            update={
                "inner": _shrink_iterations(method.inner)
                if isinstance(method.inner, spec.ConjugateGradients)
                else _shrink_method(method.inner, names, part),
                "inner_steps": min(method.inner_steps, INNER_STEPS),
                "search": search,
                "schedule": _shorten(method.schedule),
            }
        )
    else:
        smaller = _shrink_method(method, names, part)
    return small.model_copy(update={"optimizer": smaller})


def _shrink_data(data: Data) -> Data:
    """Return data of the same form that need no file."""
    if isinstance(data, Multimodal):
        tokenizer = PretrainedTokenizer(path="none", vocabulary=TEXT)
        few = {"source": Digits(), "tokenizer": tokenizer, "image_tokenizer": VQ(codebook=CODES), "context": CONTEXT}
        # No row here is made from images, so no row needs room for one.
        return data.model_copy(update={**few, "understanding_patch": None})
    return Text(source=Tokens(train=("none",), vocabulary=VOCABULARY), context=CONTEXT)


def _shrink_method(method: spec.Method, names: list[str], part: float) -> spec.Method:
    """Give a method few micro-batches and a short warm-up, and keeps the rules that own one of `names`."""
    rules, free = [], names
    for rule in method.rules:
        owned = [name for name in free if re.search(rule.match, name)]
        free = [name for name in free if name not in owned]
        rules += [rule.model_copy(update={"use": _shorten_part(rule.use)})] if owned else []
    changed: dict[str, object] = {
        "microbatches": min(method.microbatches, MICROBATCHES),
        "schedule": _shorten(method.schedule),
        "rules": tuple(rules),
    }
    if isinstance(method, spec.MethodOfMatrices):
        changed["others"] = _shorten_part(method.others)
    if isinstance(method, spec.MlFopSoap):
        changed["leaves"] = min(method.leaves, LEAVES)
    return method.model_copy(update=changed).smaller(part)


def _shrink_iterations(method: spec.ConjugateGradients) -> spec.ConjugateGradients:
    few = {"microbatches": min(method.microbatches, MICROBATCHES), "iterations": min(method.iterations, ITERATIONS)}
    return method.model_copy(update=few)


def _shorten(schedule: Scheduled) -> Scheduled:
    """Leave the schedule few updates of warm-up and of decay; parts of the run stay."""
    spans = {key: min(getattr(schedule, key), WARMUP) for key in ("warmup", "decay") if hasattr(schedule, key)}
    return schedule.model_copy(update=spans)


def _shorten_part(part: Part) -> Part:
    return part if part.schedule is None else part.model_copy(update={"schedule": _shorten(part.schedule)})


def choose_device(experiment: Experiment) -> torch.device:
    """Return the device that the spec asks for; `auto` is a GPU if there is one."""
    return torch.device(plan.choose_device(experiment))


def count_steps(experiment: Experiment) -> int:
    """Return a number of steps that takes every path of the code. They have more than ten updates in all."""
    return 4 if isinstance(experiment.optimizer, spec.GaussNewton) else STEPS + 1


def draw_start(experiment: Experiment, network: Model) -> Params:
    """Draw the model's initial weights and moves all of them by noise, so that none has a special value."""
    start = network.init(experiment.training.seed, choose_device(experiment))
    return trees.move_along(start, draw_noise(start, 1), 0.1)


def draw_noise(like: Params, seed: int) -> Params:
    """Draw standard normal tensors in the shapes of `like`."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator).to(w) for name, w in like.items()}


def draw_text(experiment: Experiment, microbatches: int, step: int) -> Tensor:
    """Draw micro-batches with structure: apart from a mark in front, each id is at least the one before it."""
    shape = (microbatches, experiment.training.rows, experiment.data.context + 1)
    ids = experiment.data.vocabulary if isinstance(experiment.data, Multimodal) else 4
    drawn = torch.randint(ids, shape, generator=torch.Generator().manual_seed(step))
    return add_channels(experiment, torch.cummax(drawn, dim=-1).values, step).to(choose_device(experiment))


def add_channels(experiment: Experiment, ids: Tensor, seed: int) -> Tensor:
    """Add to ids the other channels of the data: for images and text a suitable group, and pixels.

    The first id of each row becomes the last mark, which Janus reads as a patch.
    """
    data = experiment.data
    if not isinstance(data, Multimodal):
        return ids
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat((torch.full_like(ids[..., :1], data.text_vocabulary - 1), ids[..., 1:]), dim=-1)

    def draw(options: tuple[int, ...]) -> Tensor:
        return torch.tensor(options)[torch.randint(len(options), ids.shape, generator=generator)]

    groups = torch.where(ids >= data.text_vocabulary, draw((0, *find_groups("image"))), draw((0, *find_groups("text"))))
    pixels = torch.randint(256, (*ids.shape, data.patch_values), generator=generator)
    return torch.cat((torch.stack((ids, groups), dim=-1), pixels), dim=-1)


class Outcome(NamedTuple):
    """The result of some steps."""

    params: Params
    state: AnyState
    metrics: Metrics


def advance(
    experiment: Experiment, parts: Parts, start: Params, steps: int, state: AnyState = None, first: int = 0
) -> Outcome:
    """Take `steps` steps, counted from `first`, with a new state unless one is given. Leaves its arguments intact."""
    optimizer, params = parts.optimizer, trees.clone(start)
    metrics: Metrics = {}
    state = optimizer.init(params) if state is None else trees.clone(state)
    for step in range(first, first + steps):
        batch = draw_text(experiment, optimizer.microbatches, step)
        params, state, metrics = optimizer.step(parts.objective, params, state, batch)
    return Outcome(params, state, metrics)


def require(holds: bool | Tensor, sentence: str) -> None:
    """Raise CheckFailed with `sentence` unless `holds` is true."""
    if not holds:
        raise CheckFailed(sentence)
