"""Build the space in which an arm is tuned, and draw the trials from it."""

from collections.abc import Mapping
from math import prod

from gnflow.spec.grammar import ROOT, Shape, step_into
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.study import Dimension, Tuning
from gnflow.spec.tree import Items, Node, Origin, walk
from gnflow.study.design.draws import Axis, Choice, Draw, Range, draw_points, list_grid
from gnflow.study.design.overrides import Overrides, find_node, split_key

MOST = 1000  # largest number of trials of one arm


def make_axes(space: Mapping[str, Dimension], entries: Overrides, spec: Node) -> dict[str, Axis]:
    """Return the range or choice of each key; whole numbers if the spec accepts only those."""
    return {
        key: _make_axis(dimension, entries[key].node, _is_whole(spec, key))
        for key, dimension in space.items()
        if key in entries
    }


def list_ends(node: Node) -> tuple[Node, ...]:
    """Return the values to check: if these are valid, every draw is."""
    values = find_node(node, "values")
    return values.items if isinstance(values, Items) else (find_node(node, "low"), find_node(node, "high"))


def draw_trials(arm: str, tuning: Tuning, space: Mapping[str, Axis], entries: Overrides, origin: Origin) -> list[Draw]:
    """Return the values of each trial. Raises SpecProblems if the space does not fit the method or the trials."""
    choices = {key: axis for key, axis in space.items() if isinstance(axis, Choice)}
    if not space:
        raise _make_problem(origin, f"arm `{arm}` has no `space` to search; `trials: 0` leaves an arm as it is")
    if tuning.method != "grid":
        if tuning.trials is None:
            raise _make_problem(origin, f"`trials` is missing: the number of draws that arm `{arm}` gets")
        if tuning.trials > MOST:
            raise _make_problem(origin, f"{tuning.trials:,} trials of arm `{arm}`; at most {MOST:,} are taken")
        found = draw_points(space, tuning.method, tuning.trials, tuning.seed)
        if len(found) < tuning.trials:
            few = f"{len(found)} distinct values" if len(found) > 1 else "one value"
            raise _make_problem(
                origin, f"the space of arm `{arm}` holds {few}, and {tuning.trials} trials are asked for"
            )
        return found
    if ranges := [key for key in space if key not in choices]:
        raise _make_problem(entries[ranges[0]].origin, f"a grid needs a list of values for `{ranges[0]}`, not a range")
    if (size := prod(len(axis.values) for axis in choices.values())) > MOST:
        raise _make_problem(origin, f"{size:,} trials of arm `{arm}`; at most {MOST:,} are taken")
    found = list_grid(choices)
    if tuning.trials not in (None, len(found)):
        counted = f"{len(found)} combinations, not {tuning.trials}"
        raise _make_problem(origin, f"the grid of arm `{arm}` has {counted}; omit `trials`")
    return found


def _make_axis(dimension: Dimension, node: Node, whole: bool) -> Axis:
    if dimension.low is None or dimension.high is None:
        return Choice(list_ends(node))
    return Range(dimension.low, dimension.high, dimension.scale == "log", whole, find_node(node, "low").origin)


def _is_whole(spec: Node, key: str) -> bool:
    shape: Shape | None = ROOT
    path = split_key(key)
    nodes = [node for _, node in walk(spec, path)]
    for index, part in enumerate(path):
        shape = step_into(shape, nodes[index] if index < len(nodes) else None, part)
    return shape is not None and shape.words.startswith("a whole number")


def _make_problem(origin: Origin, message: str) -> SpecProblems:
    return SpecProblems([Problem(origin, message)])
