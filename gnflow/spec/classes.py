"""From a kind by its name to its class, which is held to what a class of its group must be."""

from functools import cache
from typing import TypeVar, get_args

from gnflow.errors import EnvironmentProblem
from gnflow.spec.base import Kind, kind_of
from gnflow.spec.imports import module
from gnflow.spec.named import GNFLOW, ONE, TARGET, Named, built_in_kinds

Base = TypeVar("Base", bound=Kind)


def built_in(base: type[Base]) -> list[type[Base]]:
    """The classes of the kinds that come with gnflow, of the group whose base this is."""
    found = [class_of(named) for named in built_in_kinds(group_of(base)).values()]
    return [kind for kind in found if issubclass(kind, base)]


def class_of(named: Named) -> type[Kind]:
    """The class of a kind. Raises EnvironmentProblem for one that cannot be imported or is no kind of its group."""
    found = _class(named)
    _ORIGINS.setdefault(found, named)
    return found


def origin_of(kind: type[Kind]) -> Named | None:
    """How the class of a plug-in was named, or a class that it is a base of; None for what is built in."""
    found = next((_ORIGINS[base] for base in kind.__mro__ if base in _ORIGINS), None)
    return None if found is None or found.place == GNFLOW else found


def group_of(model: type[Kind]) -> str:
    """The group that a class belongs to by its base."""
    return next((group for group in ONE if issubclass(model, base_of(group))), "")


@cache
def base_of(group: str) -> type[Kind]:
    """The class that all kinds of a group derive from."""
    from gnflow.spec import data, model, rules, training

    bases: dict[str, type[Kind]] = {
        "optimizers": rules.FirstOrder,
        "models": model.ModelKind,
        "sources": data.SourceKind,
        "metrics": training.MetricKind,
    }
    return bases[group]


_ORIGINS: dict[type, Named] = {}


@cache
def _class(named: Named) -> type[Kind]:
    name, _, attribute = named.target.partition(":")
    found = getattr(module(name, named.folder, named.who), attribute, None)
    base = base_of(named.group)
    if found is None:
        raise EnvironmentProblem(f"{named.who}: the module has no `{attribute}`")
    if not isinstance(found, type) or not issubclass(found, base):
        raise EnvironmentProblem(
            f"{named.who}: `{attribute}` is not a class derived from gnflow.plugin.{base.__name__}"
        )
    own = kind_of(found)
    field = found.model_fields.get("kind")
    if not own or field is None or own not in get_args(field.annotation):
        line = f'kind: Literal["{named.kind}"] = "{named.kind}"'
        raise EnvironmentProblem(f"{named.who}: the class has no `kind`; write `{line}` in it")
    if own != named.kind:
        raise EnvironmentProblem(f"{named.who}: the class calls itself `{own}`; give both the same name")
    if named.place != GNFLOW and (taken := sorted((set(found.model_fields) - {"kind"}) & _reserved(named.group))):
        raise EnvironmentProblem(
            f"{named.who}: `{taken[0]}` means something to every {ONE[named.group]} already; rename the field"
        )
    if not TARGET.fullmatch(found.factory):
        raise EnvironmentProblem(f'{named.who}: the class has no `factory`; write `factory = "module:function"` in it')
    return found


@cache
def _reserved(group: str) -> frozenset[str]:
    """Names that a field of a plug-in would hide."""
    from gnflow.spec.optimizer import MethodOfMatrices

    whole = MethodOfMatrices if group == "optimizers" else base_of(group)
    return frozenset({*dir(whole), *whole.model_fields})
