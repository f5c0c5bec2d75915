"""Where every value of an experiment came from."""

from collections.abc import Iterator, Mapping

from gnflow.spec.base import Spec
from gnflow.spec.tree import DEFAULT, KeyPath, Node, Origin, find_place, walk


def find_origins(experiment: Spec, tree: Node) -> Mapping[KeyPath, Origin]:
    """For the path of every value and every mapping: its place, or DEFAULT."""
    return {path: _find_origin(tree, path) for path, _ in walk_values(experiment)}


def walk_values(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every value inside `value` with its path, mappings and lists before what they hold."""
    yield path, value
    if isinstance(value, Spec):
        for name in type(value).model_fields:
            yield from walk_values(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from walk_values(item, (*path, index))


def _find_origin(tree: Node, path: KeyPath) -> Origin:
    trail = list(walk(tree, path))
    if len(trail) <= len(path):
        return DEFAULT
    return find_place(*trail[-1])
