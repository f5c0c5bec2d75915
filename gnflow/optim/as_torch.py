"""Makes a `torch.optim.Optimizer` of any transform, for other people's training loops.

`group["lr"]` is the learning rate of the transform, or of its first part; the rates of other parts keep their ratio to
it. A parameter without a gradient keeps its value and its state. Tensors are updated in stacks (`Stacks`): three axes
are a stack of matrices, and a tensor with more, such as that of a convolution, is the matrix (out, rest).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeAlias, cast

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.cohorts import (
    Cohort,
    Own,
    build_stacks,
    find_first_rate,
    find_rates,
    join_states,
    set_rate,
    split_state,
)
from gnflow.optim.protocol import AnyTransform, Transform, copy_code

Named: TypeAlias = tuple[str, Tensor]
Group: TypeAlias = dict[str, object]
Given: TypeAlias = Iterable[Named] | Iterable[Tensor] | Iterable[Group]
# torch and its schedulers keep these keys in a group.
OPTIONS = {"params", "param_names", "lr", "initial_lr", "max_lr", "min_lr", "swa_lr"}


def as_torch(transform: AnyTransform, params: Given, compile: bool = False) -> "TransformOptimizer":  # noqa: A002
    """Make an optimizer of `model.named_parameters()`, of parameters (named "0", "1", ...) or of param-group dicts.

    Each group has a state and an `lr` of its own. `compile` puts the update through torch.compile. Raises ValueError
    for parameters that the transform does not take, and for options other than `lr`: those are arguments of the
    transform.
    """
    if not isinstance(transform, Transform):
        raise TypeError(f"as_torch takes a transform, such as muon(0.02), not {transform!r}")
    if transform.signals is not None:
        raise ValueError(
            "this transform looks into linear layers, and as_torch sees parameters alone; use it in a spec, or call "
            "`transform.signals.observe` in a loop of your own"
        )
    return TransformOptimizer(transform, params, compile)


class TransformOptimizer(torch.optim.Optimizer):
    """A transform with its state and the parameters. It holds functions, so it can be copied but not pickled."""

    def __init__(self, transform: AnyTransform, params: Given, compiled: bool) -> None:
        self.transform, self.compiled = transform, compiled
        self.cohorts: list[list[Cohort]] = []
        """The cohorts of each group."""
        self.first_rates: list[float] = []
        super().__init__(cast("Iterable[Tensor]", params), {})
        self.defaults["lr"] = self.param_groups[0]["lr"]

    def add_param_group(self, param_group: Group) -> None:
        """Add a group with a state of its own."""
        if unknown := sorted(set(param_group) - OPTIONS):
            raise ValueError(f"unknown options {', '.join(unknown)}: besides `lr` they are arguments of the transform")
        super().add_param_group(self._with_names(param_group))
        group = self.param_groups[-1]
        try:
            first = find_first_rate(self.transform, _select_updated(self._map_names(group)))
            if not float(group.setdefault("lr", first)) >= 0:
                raise ValueError(f"a learning rate is at least 0, not {group['lr']}")
        except (KeyError, ValueError):
            self.param_groups.pop()
            raise
        self.first_rates.append(first)
        self.cohorts.append([])

    @property
    def state(self) -> defaultdict[Tensor, Own]:
        """The state of each parameter, as views of the stacks. Use `load_state_dict` to set it."""
        result: defaultdict[Tensor, Own] = defaultdict(dict)
        for group, members in zip(self.param_groups, self.cohorts, strict=True):
            states = {
                name: {**own, "cohort": torch.tensor(i)}
                for i, cohort in enumerate(members)
                for name, own in split_state(cohort).items()
            }
            result |= {p: states[name] for name, p in self._map_names(group).items() if name in states}
        return result

    @state.setter
    def state(self, value: defaultdict[Tensor, Own]) -> None:
        if value:
            raise AttributeError("to set the state of this optimizer, load a state_dict")
        self.cohorts = [[] for _ in self.cohorts]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update every parameter that has a gradient. `closure` evaluates the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for i, group in enumerate(self.param_groups):
            params = self._map_names(group)
            gradients = {name: p.grad for name, p in params.items() if p.grad is not None}
            _require_dense(gradients)
            lr = float(group["lr"])
            self.cohorts[i] = [
                self._update_cohort(set_rate(cohort, lr), params, gradients) if cohort.names[0] in gradients else cohort
                for cohort in self._regroup(i, params, gradients)
            ]
        return loss

    @torch.no_grad()
    def observe(self, targets: int) -> None:
        """Show the transform its curvature, as estimated from labels that were drawn from the model's predictions.

        The gradients of the parameters must be those of the mean loss over `targets` such labels. Raises ValueError for
        a transform that takes no estimates.
        """
        curvature = self.transform.curvature
        if curvature is None:
            raise ValueError("this transform takes no estimates of curvature; `sophia` does")
        for i, group in enumerate(self.param_groups):
            params = self._map_names(group)
            gradients = {name: p.grad for name, p in params.items() if p.grad is not None}
            squares = {name: targets * gradient.square() for name, gradient in gradients.items()}
            self.cohorts[i] = [
                cohort._replace(state=curvature.observe(cohort.stacks.stack(squares), cohort.state))
                if cohort.names[0] in gradients
                else cohort
                for cohort in self._regroup(i, params, gradients)
            ]

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Restore what `state_dict` returned, bit for bit. Raises ValueError for that of another transform."""
        own_names = [group["param_names"] for group in self.param_groups]
        ids = [packed["params"] for packed in cast("list[dict[str, list[int]]]", state_dict["param_groups"])]
        # torch would cast counts to the type of the parameters.
        super().load_state_dict({**state_dict, "state": {}})
        self.__dict__.pop("state", None)
        states = cast("dict[int, Own]", state_dict["state"])
        for i, (group, names) in enumerate(zip(self.param_groups, own_names, strict=True)):
            group["param_names"] = names
            loaded = {name: states[key] for name, key in zip(names, ids[i], strict=True) if states.get(key)}
            params = self._map_names(group)
            groups: dict[int, dict[str, Own]] = defaultdict(dict)
            for name, own in loaded.items():
                groups[int(own.get("cohort", 0))][name] = own
            self.cohorts[i] = [self._build_cohort(i, trees.pick(params, groups[k]), groups[k]) for k in sorted(groups)]

    def __getstate__(self) -> dict[str, object]:
        kept = ("defaults", "param_groups", "transform", "compiled", "cohorts", "first_rates")
        return {name: self.__dict__[name] for name in kept}

    def _with_names(self, group: Group) -> Group:
        """Name every parameter of a group. Raises ValueError for a name that is already taken."""
        given = group["params"]
        if isinstance(given, set):
            return group  # torch refuses a set with its own message
        listed: list[Tensor | Named] = (
            [given] if isinstance(given, Tensor) else list(cast("Iterable[Tensor | Named]", given))
        )
        start = sum(len(known["params"]) for known in self.param_groups)
        made_up = cast("list[str]", group.get("param_names") or [str(start + i) for i in range(len(listed))])
        if not any(isinstance(each, tuple) for each in listed):
            listed = list(zip(made_up, cast("list[Tensor]", listed), strict=True))
        names = [each[0] for each in listed if isinstance(each, tuple)]
        known = {name for group in self.param_groups for name in group["param_names"]}
        if twice := sorted({name for name in names if name in known or names.count(name) > 1}):
            raise ValueError(f"more than one parameter is named {', '.join(twice)}")
        return {**group, "params": listed, "param_names": names}

    def _map_names(self, group: Group) -> Params:
        return dict(zip(cast("list[str]", group["param_names"]), cast("list[Tensor]", group["params"]), strict=True))

    def _build_cohort(self, index: int, params: Params, states: dict[str, Own] | None = None) -> Cohort:
        stacks = build_stacks(self.transform, params)
        state = self.transform.init(stacks.stack({name: p.detach() for name, p in params.items()}))
        first = self.first_rates[index]
        ratios = {path: rate / first if first else 1.0 for path, rate in find_rates(state).items()}
        if states is not None:
            state = join_states(state, stacks, states)
        update = self.transform.update
        return Cohort(
            stacks, state, ratios, torch.compile(copy_code(update), dynamic=False) if self.compiled else update
        )

    def _regroup(self, index: int, params: Params, gradients: Params) -> list[Cohort]:
        """Split cohorts so that in each either all members have gradients or none has."""
        result = []
        for cohort in self.cohorts[index]:
            live = [name for name in cohort.names if name in gradients]
            if len(live) in (0, len(cohort.names)):
                result.append(cohort)
                continue
            parts = live, [name for name in cohort.names if name not in gradients]
            result += [self._build_cohort(index, trees.pick(params, part), split_state(cohort)) for part in parts]
        seen = {name for cohort in result for name in cohort.names}
        fresh: dict[torch.device, list[str]] = defaultdict(list)
        for name in gradients:
            if name not in seen:
                fresh[params[name].device].append(name)
        return result + [self._build_cohort(index, trees.pick(params, names)) for names in fresh.values()]

    def _update_cohort(self, cohort: Cohort, params: Params, gradients: Params) -> Cohort:
        stacked, state = cohort.stacks.stack(gradients), cohort.state
        if self.transform.refresh is not None:
            state = self.transform.refresh(stacked, state)
        updates, state = cohort.update(stacked, state, cohort.stacks.stack(params))
        moves = cohort.stacks.unstack(updates)
        torch._foreach_add_([params[name] for name in moves], list(moves.values()))
        return cohort._replace(state=state)


def _select_updated(params: Params) -> Params:
    """Return the parameters that will be updated, or all if none will. Raises ValueError for complex ones."""
    if strange := [name for name, p in params.items() if p.is_complex()]:
        raise ValueError(f"complex parameters are not supported: {', '.join(strange)}")
    return {name: p for name, p in params.items() if p.requires_grad} or params


def _require_dense(gradients: Params) -> None:
    if sparse := [name for name, gradient in gradients.items() if gradient.layout != torch.strided]:
        raise RuntimeError(f"sparse gradients are not supported: {', '.join(sparse)}")
