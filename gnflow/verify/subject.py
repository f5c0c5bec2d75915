"""What is checked: a small copy of an experiment, and the functions that are built from it."""

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler import build, methods
from gnflow.compiler.blocks import blockwise
from gnflow.models.modality import numbered
from gnflow.models.model import Model
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.protocol import AnyState, Jit, Optimizer
from gnflow.spec import optimizer as spec
from gnflow.spec.data import PretrainedTokenizer, Text, Tokens
from gnflow.spec.experiment import Experiment
from gnflow.spec.multimodal import VQ, Data, Digits, Multimodal
from gnflow.spec.parts import Part
from gnflow.spec.schedules import ScheduleKind
from gnflow.spec.training import Scratch

WIDTH, VOCABULARY, CONTEXT, ROWS, STEPS = 16, 13, 8, 2, 12
TEXT, CODES = 3, 4  # of multimodal data, marks aside
MICROBATCHES, LEAVES, INNER_STEPS, ITERATIONS, SEARCHED, WARMUP = 6, 4, 4, 8, 2, 2  # at most


class Parts(NamedTuple):
    """What an experiment is made of, before any weights."""

    network: Model
    objective: Objective
    optimizer: Optimizer


Scheduled = TypeVar("Scheduled", bound=ScheduleKind)
Make: TypeAlias = Callable[[Experiment, Jit], Parts]


class CheckFailed(Exception):
    """A check does not hold: what failed, by how much, and what was expected."""


def parts(experiment: Experiment, jit: Jit) -> Parts:
    """The same parts as those of the program of a run."""
    network = build.model(experiment, build.kernel(experiment))
    problem = build.objective(network, experiment, recomputed=experiment.compile.activations is not None)
    optimizer = methods.optimizer(experiment.optimizer, network, experiment.training.steps or STEPS, jit)
    return Parts(network, blockwise(problem, network.moving_blocks, network, jit), optimizer)


def shrunken(experiment: Experiment) -> Experiment:
    """The experiment with every size and count cut down, and every other choice kept.

    Rules by parameter name that own nothing in the smaller model are left out.
    """
    shape = experiment.model
    model = shape.smaller(WIDTH)
    part = model.side / shape.side
    training = {"steps": STEPS, "tokens": None, "rows": ROWS, "start": Scratch(), "target": None}
    small = experiment.model_copy(
        update={
            "model": model,
            "data": _few_ids(experiment.data),
            "training": experiment.training.model_copy(update=training),
        }
    )
    names = list(build.model(small, "plain").moving)
    method = experiment.optimizer
    if isinstance(method, spec.GaussNewton):
        search = method.search
        if not isinstance(search, spec.NoSearch):
            search = search.model_copy(update={"microbatches": min(search.microbatches, SEARCHED)})
        smaller: spec.Optimizer = method.model_copy(
            update={
                "inner": _few_iterations(method.inner)
                if isinstance(method.inner, spec.ConjugateGradients)
                else _few(method.inner, names, part),
                "inner_steps": min(method.inner_steps, INNER_STEPS),
                "search": search,
                "schedule": _short(method.schedule),
            }
        )
    else:
        smaller = _few(method, names, part)
    return small.model_copy(update={"optimizer": smaller})


def _few_ids(data: Data) -> Data:
    """Data of the same form that no file is read for."""
    if isinstance(data, Multimodal):
        tokenizer = PretrainedTokenizer(path="none", vocabulary=TEXT)
        few = {"source": Digits(), "tokenizer": tokenizer, "image_tokenizer": VQ(codebook=CODES), "context": CONTEXT}
        # No row is made of images here, and none needs room for one.
        return data.model_copy(update={**few, "understanding_patch": None})
    return Text(source=Tokens(train="none", vocabulary=VOCABULARY), context=CONTEXT)


def _few(method: spec.Method, names: list[str], part: float) -> spec.Method:
    """Few micro-batches, a short warm-up, and the rules that own one of `names`."""
    rules, free = [], names
    for rule in method.rules:
        owned = [name for name in free if re.search(rule.match, name)]
        free = [name for name in free if name not in owned]
        rules += [rule.model_copy(update={"use": _short_part(rule.use)})] if owned else []
    changed: dict[str, object] = {
        "microbatches": min(method.microbatches, MICROBATCHES),
        "schedule": _short(method.schedule),
        "rules": tuple(rules),
    }
    if isinstance(method, spec.MethodOfMatrices):
        changed["others"] = _short_part(method.others)
    if isinstance(method, spec.MlFopSoap):
        changed["leaves"] = min(method.leaves, LEAVES)
    return method.model_copy(update=changed).smaller(part)


def _few_iterations(method: spec.ConjugateGradients) -> spec.ConjugateGradients:
    few = {"microbatches": min(method.microbatches, MICROBATCHES), "iterations": min(method.iterations, ITERATIONS)}
    return method.model_copy(update=few)


def _short(schedule: Scheduled) -> Scheduled:
    """The schedule with few updates of warm-up and of decay; parts of the run stay."""
    spans = {key: min(getattr(schedule, key), WARMUP) for key in ("warmup", "decay") if hasattr(schedule, key)}
    return schedule.model_copy(update=spans)


def _short_part(part: Part) -> Part:
    return part if part.schedule is None else part.model_copy(update={"schedule": _short(part.schedule)})


def device(experiment: Experiment) -> torch.device:
    """The one that the spec asks for."""
    wanted = experiment.training.device
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted)


def rounds(experiment: Experiment) -> int:
    """Steps that take every path: more than ten updates, whatever a step is."""
    return 4 if isinstance(experiment.optimizer, spec.GaussNewton) else STEPS + 1


def initial(experiment: Experiment, network: Model) -> Params:
    """The model's first weights, all moved off the values that they start from."""
    start = network.init(experiment.training.seed, device(experiment))
    return trees.along(start, noise(start, 1), 0.1)


def noise(like: Params, seed: int) -> Params:
    """Standard normal tensors in the shapes of `like`."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator).to(w) for name, w in like.items()}


def text(experiment: Experiment, microbatches: int, step: int) -> Tensor:
    """Micro-batches of tokens with structure: each id is at least the one before it, but for a mark in the front."""
    shape = (microbatches, experiment.training.rows, experiment.data.context + 1)
    ids = experiment.data.vocabulary if isinstance(experiment.data, Multimodal) else 4
    drawn = torch.randint(ids, shape, generator=torch.Generator().manual_seed(step))
    return dressed(experiment, torch.cummax(drawn, dim=-1).values, step).to(device(experiment))


def dressed(experiment: Experiment, ids: Tensor, seed: int) -> Tensor:
    """Ids with whatever else the data gives each token: of images and text a group that suits it, and pixels.

    The first of each row becomes the last mark, which to Janus is a patch to be read.
    """
    data = experiment.data
    if not isinstance(data, Multimodal):
        return ids
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat((torch.full_like(ids[..., :1], data.text_vocabulary - 1), ids[..., 1:]), dim=-1)

    def drawn(options: tuple[int, ...]) -> Tensor:
        return torch.tensor(options)[torch.randint(len(options), ids.shape, generator=generator)]

    groups = torch.where(ids >= data.text_vocabulary, drawn((0, *numbered("image"))), drawn((0, *numbered("text"))))
    pixels = torch.randint(256, (*ids.shape, data.patch_values), generator=generator)
    return torch.cat((torch.stack((ids, groups), dim=-1), pixels), dim=-1)


class Reached(NamedTuple):
    """Where some steps led."""

    params: Params
    state: AnyState
    metrics: Metrics


def advanced(
    experiment: Experiment, parts: Parts, start: Params, steps: int, state: AnyState = None, first: int = 0
) -> Reached:
    """`steps` steps, the first of them number `first`; from a new state unless one is given. Consumes nothing."""
    optimizer, params = parts.optimizer, trees.clone(start)
    metrics: Metrics = {}
    state = optimizer.init(params) if state is None else trees.clone(state)
    for step in range(first, first + steps):
        batch = text(experiment, optimizer.microbatches, step)
        params, state, metrics = optimizer.step(parts.objective, params, state, batch)
    return Reached(params, state, metrics)


def require(holds: bool | Tensor, sentence: str) -> None:
    """Raises CheckFailed with `sentence` unless it holds."""
    if not holds:
        raise CheckFailed(sentence)
