"""Find the origin of every value of an experiment."""

from collections.abc import Iterator, Mapping

from gnflow.spec.base import Spec
from gnflow.spec.tree import DEFAULT, KeyPath, Node, Origin, find_place, walk


def find_origins(experiment: Spec, tree: Node) -> Mapping[KeyPath, Origin]:
    """Return the origin of every value and every mapping by path; DEFAULT for those that are not written."""
    return {path: _find_origin(tree, path) for path, _ in walk_values(experiment)}


def walk_values(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Yield every value inside `value` with its path; mappings and lists come before their contents."""
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
