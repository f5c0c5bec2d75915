"""Find the class of a kind by its name, and check that it is a class of its group."""

from functools import cache
from typing import TypeVar, get_args

from gnflow.errors import EnvironmentProblem
from gnflow.spec.base import Kind, find_kind
from gnflow.spec.imports import load_module
from gnflow.spec.named import GNFLOW, ONE, TARGET, Named, list_built_in

Base = TypeVar("Base", bound=Kind)


def load_built_in(base: type[Base]) -> list[type[Base]]:
    """Return the classes of the built-in kinds that derive from `base`."""
    found = [find_class(named) for named in list_built_in(find_group(base)).values()]
    return [kind for kind in found if issubclass(kind, base)]


def find_class(named: Named) -> type[Kind]:
    """Return the class of a kind. Raises EnvironmentProblem if it cannot be imported or is no kind of its group."""
    found = _load_class(named)
    _ORIGINS.setdefault(found, named)
    return found


def find_origin(kind: type[Kind]) -> Named | None:
    """Return the row that names the class of a plug-in or one of its bases; None for a built-in kind."""
    found = next((_ORIGINS[base] for base in kind.__mro__ if base in _ORIGINS), None)
    return None if found is None or found.place == GNFLOW else found


def find_group(model: type[Kind]) -> str:
    """Return the group that a class belongs to, or an empty text if it belongs to none."""
    return next((group for group in ONE if issubclass(model, find_base(group))), "")


@cache
def find_base(group: str) -> type[Kind]:
    """Return the class that all kinds of a group derive from."""
    from gnflow.spec import data, model, rules, tracking, training

    bases: dict[str, type[Kind]] = {
        "optimizers": rules.FirstOrder,
        "models": model.ModelKind,
        "sources": data.SourceKind,
        "metrics": training.MetricKind,
        "trackers": tracking.TrackerKind,
    }
    return bases[group]


_ORIGINS: dict[type, Named] = {}


@cache
def _load_class(named: Named) -> type[Kind]:
    name, _, attribute = named.target.partition(":")
    found = getattr(load_module(name, named.folder, named.who), attribute, None)
    base = find_base(named.group)
    if found is None:
        raise EnvironmentProblem(f"{named.who}: the module has no `{attribute}`")
    if not isinstance(found, type) or not issubclass(found, base):
        raise EnvironmentProblem(
            f"{named.who}: `{attribute}` is not a class derived from gnflow.plugin.{base.__name__}"
        )
    own = find_kind(found)
    field = found.model_fields.get("kind")
    if not own or field is None or own not in get_args(field.annotation):
        line = f'kind: Literal["{named.kind}"] = "{named.kind}"'
        raise EnvironmentProblem(f"{named.who}: the class has no `kind`; write `{line}` in it")
    if own != named.kind:
        raise EnvironmentProblem(f"{named.who}: the class calls itself `{own}`; give both the same name")
    if named.place != GNFLOW and (taken := sorted((set(found.model_fields) - {"kind"}) & _list_reserved(named.group))):
        raise EnvironmentProblem(
            f"{named.who}: `{taken[0]}` is already an attribute of every {ONE[named.group]}; rename the field"
        )
    if not TARGET.fullmatch(found.factory):
        raise EnvironmentProblem(f'{named.who}: the class has no `factory`; write `factory = "module:function"` in it')
    return found


@cache
def _list_reserved(group: str) -> frozenset[str]:
    """Return the names that a field of a plug-in must not have, because it would hide them."""
    from gnflow.spec.optimizer import MethodOfMatrices

    whole = MethodOfMatrices if group == "optimizers" else find_base(group)
    return frozenset({*dir(whole), *whole.model_fields})
