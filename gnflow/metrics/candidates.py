"""Methods whose directions are compared at weights that do not move."""

from collections.abc import Callable, Iterable

from torch import Tensor

from gnflow import trees
from gnflow.objective import Objective, Params
from gnflow.optim.means import average_diagonal
from gnflow.optim.observation import collect_for
from gnflow.optim.protocol import Transform
from gnflow.optim.schedules import constant
from gnflow.optim.stacks import Stacks
from gnflow.spec.factory import call_factory, collect_parameters
from gnflow.spec.preconditioners import Candidate
from gnflow.spec.rules import FirstOrder

ISOLATED: dict[str, object] = {
    "momentum": 0.0,
    "nesterov": False,
    "unbiased": False,
    "weight_decay": 0.0,
    "hyperball": False,
    "estimate_every": 1,
    "precondition_frequency": 1,
}
"""Fields of a rule that are set, so that a direction shows the statistics alone, renewed at every update."""


def start_trials(candidates: Iterable[Candidate], params: Params) -> "list[Trial]":
    """Return a trial of each method on these matrices, with a state that has seen nothing."""
    return [Trial(each.name, isolate(each.use), params) for each in candidates]


def isolate(rule: FirstOrder) -> FirstOrder:
    """Return the rule without momentum and weight decay, whose statistics are renewed at every update."""
    changed = {key: value for key, value in ISOLATED.items() if key in type(rule).model_fields}
    if isinstance(betas := getattr(rule, "betas", None), tuple):
        changed["betas"] = (0.0, *betas[1:])
    return rule.model_copy(update=changed)


class Trial:
    """A method with its state, and the direction of its last update."""

    def __init__(self, name: str, rule: FirstOrder, params: Params) -> None:
        self.name = name
        self.transform = call_factory(rule, Transform, **collect_parameters(rule), schedule=constant())
        each = {name} if self.transform.each else ()
        self.stacks = Stacks.by_rule(dict.fromkeys(params, name), {n: tuple(w.shape) for n, w in params.items()}, each)
        self.weights = self.stacks.stack(params)
        self.state = self.transform.init(self.weights)
        self.direction: Params = {}

    def advance(
        self, loss: Objective, params: Params, gradient: Params, batch: Tensor, draw: Callable[[int], Tensor]
    ) -> None:
        """Make one update, without moving the weights. `draw` makes the noise of the labels of each micro-batch."""
        transform, stacked = self.transform, self.stacks.stack(gradient)
        if transform.curvature is not None and transform.curvature.due(self.state) is not None:
            diagonal = trees.pick(average_diagonal(loss.build_model(params), batch, draw), gradient)
            self.state = transform.curvature.observe(self.stacks.stack(diagonal), self.state)
        if transform.signals is not None and transform.signals.due(self.state) is not None:
            collect = collect_for(loss.build_model(params), self.stacks, batch, draw)
            self.state = transform.signals.observe(collect, self.state)
        if transform.refresh is not None:
            self.state = transform.refresh(stacked, self.state)
        updates, self.state = transform.update(stacked, self.state, self.weights)
        self.direction = trees.scale(self.stacks.unstack(updates), -1)
