"""Suggest the valid name that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from gnflow.spec import elsewhere
from gnflow.spec.base import Spec, join_with_or
from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import Shape, list_shapes, walk_models
from gnflow.spec.kinds import Kinds, get_current
from gnflow.spec.open import list_usable
from gnflow.spec.tree import join_path

_SURE, _LIKELY = 0.75, 0.6


def suggest_value(word: str, choices: tuple[str, ...]) -> str | None:
    """Return the choice that another tool calls `word`, or else the choice with the most similar spelling."""
    return elsewhere.find_value(word, choices) or find_nearest(word, choices)


def find_nearest(word: str, names: Iterable[str], cutoff: float = _LIKELY) -> str | None:
    """Return the name most similar to `word`, or None; capitals and dashes are ignored."""
    plain = {name.lower().replace("-", "_"): name for name in names}
    found = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def suggest_key(key: str, shape: Shape, kind: str, root: type[Spec] = Experiment) -> tuple[str, str | None]:
    """Return an addition to the message about a `key` that the `kind` does not have, and a name to suggest."""
    here = list_shapes(shape.models[kind])
    if owners := [f"`{other}`" for other, model in list_usable(shape.models) if key in list_shapes(model)]:
        return f"; `{key}` belongs to {join_with_or(owners)}", None
    if ":" in key:
        return "; write a space after the colon", None
    if found := _suggest_from_elsewhere(key, shape, kind, root):
        return found
    if near := find_nearest(key, here, _SURE):
        return "", near
    for other, model in list_usable(shape.models):
        if near := find_nearest(key, list_shapes(model), _SURE):
            return f"; `{other}` has `{near}`", None
    if places := _find_places(root, get_current()).get(key):
        return f"; it belongs {join_with_or(places[:3])}", None
    if near := find_nearest(key, here):
        return "", near
    valid = [f"`{name}`" for name in here if name != "kind"]
    return (f"; valid keys are {join_with_or(valid)}" if valid else f"; `{kind}` takes none"), None


def _suggest_from_elsewhere(key: str, shape: Shape, kind: str, root: type[Spec]) -> tuple[str, str | None] | None:
    """Return the result of `suggest_key` for a key that another tool has; None for any other key."""
    here = list_shapes(shape.models[kind])
    if key in elsewhere.KIND and "kind" in here and key not in _find_places(root, get_current()):
        return "", "kind"
    if why := elsewhere.find_reason(key):
        return f"; {why}", None
    known = elsewhere.find_meaning(key)
    if known is None:
        return None
    if known.key in here:
        return (f"; {known.remark}" if known.remark else ""), known.key
    if root is not Experiment:
        return None
    remark = f": {known.remark}" if known.remark else ""
    called = f"; gnflow calls it `{known.key}`, which belongs"
    inside = [name for name, below in here.items() if _has(below, known.key)]
    if inside and shape.models[kind] is not root:
        own = known.path[-2] if len(known.path) > 1 else ""
        return f"{called} in `{own if own in inside else inside[0]}`{remark}", None
    if owners := [f"`{other}`" for other, model in list_usable(shape.models) if known.key in list_shapes(model)]:
        return f"{called} to {join_with_or(owners)}{remark}", None
    place = f"in `{'.'.join(known.path[:-1])}`" if len(known.path) > 1 else "at the top of the file"
    return f"{called} {place}{remark}", None


def _has(shape: Shape, key: str) -> bool:
    return any(key in list_shapes(model) for _, model in list_usable(shape.models))


@cache
def _find_places(root: type[Spec], kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """Return the mappings that have each key, the nearest to the root first."""
    places: dict[str, dict[str, None]] = {}
    for path, model in walk_models(Shape("a mapping", {"": root})):
        place = f"in `{join_path(path)}`" if path else "at the top of the file"
        for key in list_shapes(model):
            places.setdefault(key, {})[place] = None
    return {key: tuple(found) for key, found in places.items()}
