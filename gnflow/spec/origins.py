"""Where every value of an experiment came from."""

from collections.abc import Iterator, Mapping

from gnflow.spec.base import Spec
from gnflow.spec.tree import DEFAULT, KeyPath, Node, Origin, along, place_of


def origins_of(experiment: Spec, tree: Node) -> Mapping[KeyPath, Origin]:
    """For the path of every value and every mapping: its place, or DEFAULT."""
    return {path: _origin(tree, path) for path, _ in values(experiment)}


def values(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every value inside `value` with its path, mappings and lists before what they hold."""
    yield path, value
    if isinstance(value, Spec):
        for name in type(value).model_fields:
            yield from values(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from values(item, (*path, index))


def _origin(tree: Node, path: KeyPath) -> Origin:
    trail = list(along(tree, path))
    if len(trail) <= len(path):
        return DEFAULT
    return place_of(*trail[-1])
