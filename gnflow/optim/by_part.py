"""Updates by parts: each process makes the updates of the parameters that it owns, and keeps the state of these alone.

A part is one matrix, or all vectors of a rule. The sum of the gradients goes to the owners only, and they send the
moved weights to all others, which together are the bytes of a sum that everyone gets. The parts do not depend on the
number of processes, and no update is computed on a stack of several parts. So any number of processes has the same
bits.

    norm of a tree = sqrt(sum over parts of |part|^2), in the order of the parts
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.crew import Crew
from gnflow.objective import Metrics, Params, Scalar, Slopes
from gnflow.optim.descent import Descent, Slope
from gnflow.optim.means import average_gradient
from gnflow.optim.messages import average_metrics, hear_metrics, say_metrics
from gnflow.optim.protocol import AnyState, Cost, Diagonal, KeptByAll, Part, make_counter
from gnflow.optim.stacks import Stacks, find_stacked_shape

PREFIX = "part:"
NORMS = ("norm/gradient", "norm/update")
Rate: TypeAlias = Callable[[Tensor], Scalar]
"""Updates made so far (0-D) -> learning rate (0-D)."""


class Ownership(NamedTuple):
    """The number of this process, and the process that owns each part. By default it owns all."""

    rank: int = 0
    owners: Mapping[str, int] = {}

    def find(self, part: str) -> int:
        """Return the rank of the owner."""
        return self.owners.get(part, self.rank)


SOLE = Ownership()


class Clip(NamedTuple):
    """The largest norms of the gradients of groups of parts, and the group of each part. A group may have no limit."""

    limits: Mapping[str, float] = {}
    groups: Mapping[str, str] = {}


NO_CLIP = Clip()


class ByPartState(NamedTuple):
    """The number of updates made, and the state of each part that this process owns."""

    updates: Tensor
    parts: dict[str, AnyState]


def name_part(stacks: Stacks) -> str:
    """Name a part after its first parameter. A checkpoint has a file of this name."""
    return PREFIX + next(iter(stacks.shapes))


def find_part(path: str) -> str | None:
    """Return the part that a tensor of a state belongs to, given its path; None for a tensor of all processes."""
    return next((key for key in path.split("/") if key.startswith(PREFIX)), None)


def divide(
    routes: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    each: Collection[str] = (),
    transposed: Collection[str] = (),
) -> list[Stacks]:
    """Return the stack of each part. Parts of one form have a stack of the same name, and can share regions.

    `routes` has the rule of every parameter. Rules in `each` see every parameter by itself, in its own shape.
    Those that are `transposed` are joined as such.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for name, rule in routes.items():
        vector = len(shapes[name]) < 2 and rule not in each
        members[rule if vector else f"{rule} {name}"].append(name)
    return [
        _isolate(routes[names[0]], names, shapes, routes[names[0]] in each, transposed) for names in members.values()
    ]


def _isolate(
    rule: str, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], apart: bool, transposed: Collection[str]
) -> Stacks:
    first = shapes[names[0]][::-1] if names[0] in transposed else shapes[names[0]]
    shape = first if apart else find_stacked_shape(first)
    sizes = shape if len(shape) > 1 else (sum(prod(shapes[name]) for name in names),)
    form = f"{rule}:{'x'.join(map(str, sizes)).removeprefix('1x')}"
    own = {name: tuple(shapes[name]) for name in names}
    turned = frozenset(name for name in names if name in transposed)
    return Stacks({form: tuple(names)}, own, {form: rule}, frozenset([form] if apart else ()), turned)


def join_norms(norms: Tensor) -> list[Scalar]:
    """Return the norms over all parts, given those of each part, (parts, count)."""
    return list(norms.square().sum(0).sqrt())


class ByPart(KeptByAll):
    """Takes the steps of a `Descent`, part by part. Each solver has the stacks of its part alone.

    If the solvers are `probed`, all processes exchange what their probes measured.
    """

    def __init__(
        self,
        solvers: Mapping[str, Descent],
        ownership: Ownership = SOLE,
        clip: Clip = NO_CLIP,
        rate: Rate | None = None,
        probed: bool = False,
    ) -> None:
        self.solvers, self.clip, self.rate, self.probed = solvers, clip, rate, probed
        self.owners = {part: ownership.find(part) for part in solvers}
        self.own = [part for part, owner in self.owners.items() if owner == ownership.rank]
        self.names = {part: tuple(solver.stacks.shapes) for part, solver in solvers.items()}
        self.owners_of_weights = {name: self.owners[part] for part, names in self.names.items() for name in names}
        self.cost: Cost = next(iter(solvers.values())).cost

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.cost.microbatches

    def init(self, params: Params) -> ByPartState:
        """Return the state of the parts that this process owns."""
        return ByPartState(make_counter(params), {part: self._init_part(part, params) for part in self.own})

    def parts(self, params: Params, state: ByPartState) -> Iterator[Part]:
        """Return the solver of each part whose state is here."""
        for part, inner in state.parts.items():
            yield Part(self.solvers[part], trees.pick(params, self.names[part]), inner)

    def diagonal(self, state: ByPartState) -> Diagonal | None:
        """Return None, since each part has its own statistics."""
        return None

    def step(
        self, objective: Slopes, params: Params, state: ByPartState, batch: Tensor
    ) -> tuple[Params, ByPartState, Metrics]:
        """Take one update on the gradients of all micro-batches of `batch`."""
        crew = objective.crew
        gradient, loss = average_gradient(objective, params, batch, self.owners_of_weights)
        stacked = {part: self.solvers[part].stacks.stack(gradient) for part in self.own}
        del gradient
        metrics: Metrics = {"loss/train": loss}
        shrink: dict[str, Tensor] = {}
        if self.clip.limits:
            lengths = self._gather(crew, {part: [trees.norm(own)] for part, own in stacked.items()}, params, 1)
            (metrics["norm/gradient"],) = join_norms(lengths)
            shrink = self._find_factors(lengths)
        moved, after, found = dict[str, Params](), dict[str, AnyState](), dict[str, Metrics]()
        for part in self.own:
            raw = stacked.pop(part)
            slope = Slope(trees.scale(raw, shrink[part]) if part in shrink else raw, raw, raw)
            own = trees.pick(params, self.names[part])
            moved[part], after[part], found[part] = self.solvers[part].follow(slope, own, state.parts[part])
        norms = {part: [each[name] for name in NORMS] for part, each in found.items()}
        joined = join_norms(self._gather(crew, norms, params, len(NORMS)))
        metrics = {**dict(zip(NORMS, joined, strict=True)), **metrics}
        if self.rate is not None:
            metrics["learning_rate"] = self.rate(state.updates)
        if self.probed:
            metrics |= self._join_probes(crew, found, params)
        weights = {**params, **{name: weight for own in moved.values() for name, weight in own.items()}}
        return self._spread(crew, weights), ByPartState(state.updates + 1, after), metrics

    def whole(self, params: Params, state: ByPartState, crew: Crew) -> ByPartState:
        """Return the state with the parts that other processes own. All processes call it."""
        if crew.size == 1:
            return state
        parts = {**{part: self._init_part(part, params) for part in self.names}, **state.parts}
        sent: dict[int, Params] = defaultdict(dict)
        for part, inner in parts.items():
            sent[self.owners[part]] |= trees.name_tensors({part: inner})
        crew.spread(sent)
        found = {name: tensor for tree in sent.values() for name, tensor in tree.items()}
        return state._replace(parts=trees.fill_tensors(parts, found))

    def _init_part(self, part: str, params: Params) -> AnyState:
        return self.solvers[part].init(trees.pick(params, self.names[part]))

    def _spread(self, crew: Crew, weights: Params) -> Params:
        """Send the weights of our parts to all, and return those of all."""
        if crew.size == 1:
            return weights
        sent: dict[int, Params] = defaultdict(dict)
        for name, owner in self.owners_of_weights.items():
            sent[owner][name] = weights[name]
        crew.spread(sent)
        return {name: sent[self.owners_of_weights[name]][name] for name in weights}

    def _gather(self, crew: Crew, norms: Mapping[str, list[Tensor]], params: Params, count: int) -> Tensor:
        """Return `count` norms of each part, (parts, count), given those of the parts that are here."""
        like = next(iter(params.values())).new_zeros(count)
        return crew.gather_owned({part: torch.stack(own) for part, own in norms.items()}, self.owners, like)

    def _find_factors(self, lengths: Tensor) -> dict[str, Tensor]:
        """Return the factor by which the gradient of each part is clipped, given the norms of all parts, (parts, 1)."""
        factors: dict[str, Tensor] = {}
        for group, largest in self.clip.limits.items():
            places = [place for place, part in enumerate(self.owners) if self.clip.groups[part] == group]
            if not places:
                continue
            (length,) = join_norms(lengths[torch.tensor(places, device=lengths.device)])
            factor = (largest / length.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
            factors |= {part: factor for part in self.owners if self.clip.groups[part] == group}
        return factors

    def _join_probes(self, crew: Crew, found: Mapping[str, Metrics], params: Params) -> Metrics:
        """Average what the probes measured over the parts that have it."""
        own = {part: {name: x for name, x in each.items() if name not in NORMS} for part, each in found.items()}
        if crew.size == 1:
            return average_metrics([own[part] for part in self.owners])
        told = crew.collect({part: say_metrics(each) for part, each in own.items()})
        every = {part: each for rank in told for part, each in rank.items()}
        return average_metrics([hear_metrics(every[part], params) for part in self.owners])
