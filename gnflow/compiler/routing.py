"""Assign each parameter to a method: by the rules of the spec first, then by the method's own choice."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.models.model import Model
from gnflow.spec import optimizer as spec
from gnflow.spec import rules
from gnflow.spec.parts import Rule


class Routing(NamedTuple):
    """The rules of a method, and the rule of each parameter."""

    rules: Mapping[str, rules.FirstOrder]
    """Label -> method, in order of precedence."""
    routes: Mapping[str, str]
    """Parameter -> label. Frozen parameters have none."""


def route_parameters(method: spec.Method, network: Model) -> Routing:
    """Assign each parameter to the first rule that matches.

    Raises SpecError for a method of matrices that is left without any, and for a rule that owns nothing, that has
    vectors under a method of matrices, that catches embedding or head along with matrices inside the blocks, or that
    cannot be followed by a weight of this shape.
    """
    labels = label_rules(method)

    def find_owner(name: str) -> str:
        for i, rule in enumerate(method.rules):
            if re.search(rule.match, name):
                return f"rules.{i}"
        inside, shape = name in network.hidden, network.weights[name].shape
        return method.kind if method.takes(shape, inside) else "others"

    routes = {name: find_owner(name) for name in network.moving}
    for i, rule in enumerate(method.rules):
        _require_sense(i, rule, [name for name, label in routes.items() if label == f"rules.{i}"], network)
    _require_matrices(method, [labels[label] for label in routes.values()], network)
    _require_fit(labels, routes, network)
    return Routing(labels, routes)


def label_rules(method: spec.Method) -> dict[str, rules.FirstOrder]:
    """Return the rules of a method by label, in order of precedence."""
    labels: dict[str, rules.FirstOrder] = {f"rules.{i}": rule.use for i, rule in enumerate(method.rules)}
    labels[method.kind] = method
    if isinstance(method, spec.MethodOfMatrices):
        labels["others"] = method.others
    return labels


def _require_sense(index: int, rule: Rule, owned: list[str], network: Model) -> None:
    where = f"optimizer rule {index} (match: {rule.match})"
    if not owned:
        raise SpecError(f"{where} owns no parameter; see `gnflow plan` for names")
    if not rule.use.matrices:
        return
    vectors = [name for name in owned if len(network.weights[name].shape) != 2]
    if vectors:
        raise SpecError(f"{where} sends vectors to {rule.use.kind}, which takes matrices only: {', '.join(vectors)}")
    outside = [name for name in owned if name not in network.hidden]
    if outside and len(outside) < len(owned):
        raise SpecError(
            f"{where} sends {' and '.join(outside)} to {rule.use.kind} along with matrices inside the blocks; "
            "if that is meant, give them a rule of their own"
        )


def _require_matrices(method: spec.Method, used: Sequence[rules.FirstOrder], network: Model) -> None:
    projected = isinstance(method, spec.Projected)
    if method.matrices and not any(rule.has_metric if projected else rule.matrices for rule in used):
        why = "all of them are frozen (model.freeze)" if network.hidden <= network.frozen else "rules take them all"
        raise SpecError(f"optimizer {method.kind} is left without any matrix: {why}; use `kind: adamw`")


def _require_fit(labels: Mapping[str, rules.FirstOrder], routes: Mapping[str, str], network: Model) -> None:
    for name, label in routes.items():
        if problem := labels[label].find_problem(network.weights[name].shape):
            raise SpecError(f"{problem} of {name}; give such weights a rule of their own")
        if labels[label].takes_signals and name not in network.linears:
            raise SpecError(
                f"{labels[label].kind} looks at the tokens that a linear layer maps, and {name} is not the weight of "
                "such a layer; give it a rule of its own, such as {match: '^" + name + "$', use: adamw}"
            )
