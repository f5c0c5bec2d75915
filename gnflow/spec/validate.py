"""Validate a tree of values as an Experiment, and write the errors of pydantic as sentences with their place."""

from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gnflow.spec.base import PLAIN, Spec, join_with_or
from gnflow.spec.elsewhere import KIND
from gnflow.spec.experiment import Experiment
from gnflow.spec.grammar import Shape, find_help, list_shapes, step_into
from gnflow.spec.lookalikes import find_missing_space, name_lookalike
from gnflow.spec.problems import MOST, Problem
from gnflow.spec.quantities import parse_quantity
from gnflow.spec.scalar import Refused, parse_scalar
from gnflow.spec.suggest import suggest_key, suggest_value
from gnflow.spec.tree import (
    Broken,
    Items,
    KeyPath,
    Node,
    Origin,
    Scalar,
    Table,
    find_place,
    join_path,
    make_plain,
    walk,
)

# What a base file that could not be read may have held.
_ABSENCES = {"missing", "union_tag_not_found", "gnflow"}
_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


Root = TypeVar("Root", bound=Spec)


def validate(tree: Node, problems: list[Problem], complete: bool = True) -> Experiment | None:
    """Return the experiment; append problems and return None if the tree is invalid.

    If a base file could not be read, `complete` is false, and no key is reported as missing.
    """
    return validate_as(Experiment, tree, problems, complete)


def validate_as(model: type[Root], tree: Node, problems: list[Problem], complete: bool = True) -> Root | None:
    """Validate a tree like `validate`, but as another `model`."""
    try:
        return model.model_validate(make_plain(tree))
    except ValidationError as error:
        found: list[tuple[bool, Problem]] = []
        for details in islice(error.errors(include_url=False, include_input=False), 2 * MOST):
            place = _Place.follow(model, tree, details["loc"])
            if not _is_excused(place, details) and (complete or details["type"] not in _ABSENCES):
                found.append((details["type"] == "missing", _make_problem(place, details)))
        misspelt = {".".join([*problem.key.split(".")[:-1], problem.suggestion or ""]) for _, problem in found}
        problems += [problem for missing, problem in found if not (missing and problem.key in misspelt)]
        return None


@dataclass(frozen=True)
class _Place:
    """The place of an error in the tree and in the grammar."""

    path: KeyPath
    trail: tuple[tuple[Origin, Node], ...]
    """The nodes from the root to the value, as far as the tree goes."""
    shape: Shape
    around: Shape
    kind: str
    """The kind of the mapping around the value."""
    root: type[Spec]

    @classmethod
    def follow(cls, root: type[Spec], tree: Node, location: tuple[str | int, ...]) -> "_Place":
        """Return the place at pydantic's location, which has the tag of a union between two keys."""
        path: KeyPath = ()
        shape = around = Shape("a mapping", {"": root})
        inside = kind = ""
        chosen = True
        for part in location:
            if not chosen and shape.tagged and part in (*shape.models, PLAIN):
                inside, chosen = str(part), True  # the next one is a key, though a kind may be called so too
                continue
            path, around, kind = (*path, part), shape, inside
            below = (
                list_shapes(shape.models[inside]).get(str(part))
                if inside in shape.models
                else step_into(shape, None, part)
            )
            shape = below or Shape("", {})
            inside, chosen = next(iter(shape.models), ""), False
        return cls(path, tuple(walk(tree, path)), shape, around, kind, root)

    @property
    def node(self) -> Node | None:
        """The node of the value, or None; a broken node stands for everything in it."""
        last = self.trail[-1][1]
        return last if len(self.trail) > len(self.path) or isinstance(last, Broken) else None

    @property
    def origin(self) -> Origin:
        """The origin of the value, or of the nearest node above it."""
        return find_place(*self.trail[-1])

    def move_to(self, path: KeyPath) -> "_Place":
        """Return another place of the same tree, or the nearest one above it if nothing is written there."""
        return replace(self, path=path, trail=tuple(walk(self.trail[0][1], path)))

    def find_beside(self, keys: tuple[str | int, ...]) -> Origin:
        """Return the origin of the first of `keys` that is written in this value or beside it."""
        for _, node in reversed(self.trail[-2:]):
            for key in keys:
                _, *below = walk(node, (key,))
                if below:
                    return below[0][0]
        return self.origin


def _is_excused(place: _Place, details: ErrorDetails) -> bool:
    """Return whether the error only follows from another problem that is already reported."""
    kind = details["type"]
    match place.node:
        case Broken():
            return True
        case Table(entries=entries) if kind == "union_tag_invalid":
            return isinstance(entries["kind"].node, Broken)
        case Items(items=items) if kind == "too_short":  # pydantic does not count the items that are wrong
            return len(items) >= int(details["ctx"]["min_length"])
        case Scalar() if kind == "too_short":  # a single value that is wrong itself
            return True
        case _:
            return kind == "gnflow" and any(_holds_broken(node) for _, node in place.trail[-2:])


def _holds_broken(node: Node) -> bool:
    match node:
        case Table(entries=entries):
            return any(_holds_broken(entry.node) for entry in entries.values())
        case Items(items=items):
            return any(map(_holds_broken, items))
        case _:
            return isinstance(node, Broken)


def _make_problem(place: _Place, details: ErrorDetails) -> Problem:
    key = place.path[-1] if place.path else ""
    owner = f" in `{join_path(place.path[:-1])}`" if len(place.path) > 1 else ""
    owner += f" ({place.kind})" if place.kind and len(place.around.models) > 1 else ""
    match details["type"]:
        case "missing" if isinstance(key, str):
            purpose = " ".join(find_help(place.around.models[place.kind], key).split()).rstrip(".")
            return _place_problem(place, f"key `{key}` is missing{owner}: {purpose}; expected {place.shape.words}")
        case "missing":
            return _place_problem(place, f"expected {place.around.words}, got {_describe(place.trail[-1][1])}")
        case "extra_forbidden" if key == "extends" and place.root is Experiment:
            return _place_problem(place, "`extends` must be at the top of the file", place.trail[-1][0])
        case "extra_forbidden":
            more, name = suggest_key(str(key), place.around, place.kind, place.root)
            return _place_problem(place, f"unknown key `{key}`{owner}{more}", place.trail[-1][0], name)
        case "union_tag_not_found":
            other = next((key for key in KIND if isinstance(place.node, Table) and key in place.node.entries), None)
            more = f"; gnflow calls `{other}` `kind`" if other else ""
            return _place_problem(
                place, f"key `kind` is missing in `{join_path(place.path)}`; expected {_list_kinds(place.shape)}{more}"
            )
        case "union_tag_invalid":
            return _report_unknown_kind(place, place.shape.kinds, place.find_beside(("kind",)))
        case "literal_error" if key == "kind":
            return _report_unknown_kind(place, place.shape.choices, place.origin)
        case "gnflow":
            context = details["ctx"]
            if elsewhere := next((at for at in context["at"] if isinstance(at, tuple)), None):
                return _place_problem(place.move_to(elsewhere), str(context["message"]))
            return _place_problem(place, str(context["message"]), place.find_beside(context["at"]))
        case _:
            return _report_unfit(place, details)


def _place_problem(place: _Place, message: str, origin: Origin | None = None, suggestion: str | None = None) -> Problem:
    return name_lookalike(Problem(origin or place.origin, message, join_path(place.path), suggestion))


def _list_kinds(shape: Shape) -> str:
    return join_with_or([f"`{kind}`" for kind in shape.kinds])


def _report_unknown_kind(place: _Place, kinds: tuple[str, ...], origin: Origin) -> Problem:
    node = place.node
    kind = node.entries["kind"].node if isinstance(node, Table) else node
    raw = kind.raw if isinstance(kind, Scalar) else ""
    if isinstance(kind, Scalar):
        origin = kind.origin
    if kind is node and (joined := find_missing_space(origin)):
        return replace(joined, key=join_path(place.path))
    message = f"unknown kind `{raw}`; expected {join_with_or([f'`{name}`' for name in kinds])}"
    return _place_problem(place, message, origin, suggest_value(raw, kinds) if len(kinds) > 1 else None)


def _report_unfit(place: _Place, details: ErrorDetails) -> Problem:
    node = place.node
    if not place.shape.words or node is None:
        return _place_problem(place, details["msg"])
    if isinstance(node, Scalar) and place.shape.models and (joined := find_missing_space(node.origin)):
        return replace(joined, key=join_path(place.path))
    message = f"expected {place.shape.words}, got {_describe(node)}{_suggest_remedy(node, place.shape)}"
    raw = node.raw if isinstance(node, Scalar) else ""
    return _place_problem(
        place, message, suggestion=suggest_value(raw, place.shape.choices) if len(place.shape.choices) > 1 else None
    )


def _describe(node: Node) -> str:
    match node:
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=str(text)):
            return f"the text `{text if len(text) <= 60 else text[:57] + '...'}`"
        case Scalar(raw=raw):
            return f"`{raw}`"
        case Items(items=items):
            return f"a list of {len(items)}" if items else "an empty list"
        case _:
            return "a mapping"


def _suggest_remedy(node: Node, shape: Shape) -> str:
    match node:
        case Scalar(value=str(text)) if shape.choices == ("true", "false") and text.lower() in _SWITCHES:
            return f"; write `{_SWITCHES[text.lower()]}`"
        case Scalar(value=str(text)) if "number" in shape.words and _reads_as_number(text):
            return "; remove the quotes"
        case Scalar(value=str(text)) if "number" in shape.words and (number := _parse_quantity(text, shape)):
            return f"; write `{number}`"
        case Scalar(value=float(value)) if "whole number" in shape.words and value.is_integer() and abs(value) < 2**53:
            return f"; write `{int(value)}`"
        case Scalar(value=bool() | int() | float()) if "text" in shape.words or "letters" in shape.words:
            return "; put it in quotes"
        case _:
            return ""


def _parse_quantity(text: str, shape: Shape) -> str | None:
    return parse_quantity(text, shape.unit, "whole number" in shape.words)


def _reads_as_number(text: str) -> bool:
    try:
        return isinstance(parse_scalar(text), (int, float)) and text not in ("true", "false")
    except Refused:
        return False
