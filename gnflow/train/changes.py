"""Decide what may change in the spec of an existing run: keys that change no result, and a later end.

A run of 6 steps is the beginning of a run of 12 if no step depends on the number of steps. With a schedule that decays
towards the end, steps do depend on it, so such a run cannot be extended.
"""

from collections.abc import Iterator, Mapping

from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.spec.origins import walk_values
from gnflow.spec.tree import join_path
from gnflow.train.journal import Step

Differences = Mapping[str, tuple[str, str]]
"""Maps a key to its value in the stored spec and its value in this one."""
CHANGED, EXTENDED = "changed", "extended"  # names of events

# These keys say what is kept and mirrored, and what the compiler may do. No number of a step depends on them.
_NEUTRAL = (
    "training.checkpoint_every", "training.temporary_checkpoint_minutes", "tracking", "compile.max_recompiles",
    "compile.max_graph_breaks",
)  # fmt: skip
_END = ("training.steps", "training.tokens", "training.target")


def is_neutral(key: str, experiment: Experiment) -> bool:
    """Return whether a key changes no result. With `rollback` the schedule of checkpoints changes it."""
    if key == "training.checkpoint_every" and experiment.training.on_nonfinite == "rollback":
        return False
    return _is_one_of(key, _NEUTRAL)


def is_about_end(key: str) -> bool:
    """Return whether a key says when the run ends."""
    return _is_one_of(key, _END)


def is_refused(differing: Differences, experiment: Experiment, extend: bool) -> bool:
    """Return whether a run of the stored spec cannot continue under this spec."""
    return any(not is_neutral(key, experiment) and not (extend and is_about_end(key)) for key in differing)


def is_extendable(differing: Differences, experiment: Experiment) -> bool:
    """Return whether `extend` would let the existing run continue as this one."""
    return not is_refused(differing, experiment, extend=True) and not any(_find_look_ahead(experiment))


def require_no_look_ahead(experiment: Experiment) -> None:
    """Raise SpecError if a step depends on how many steps there will be."""
    for key, kind in _find_look_ahead(experiment):
        raise SpecError(
            f"`{key}` is `{kind}`, which looks ahead: its values depend on the number of steps, so the existing run "
            "is not the beginning of a longer one.\nGive the longer run another name, or begin again with "
            "--fresh; runs with the schedule `constant` can be extended."
        )


def require_later(last: int, steps: int, reached: int | None) -> None:
    """Raise SpecError unless a spec of so many `steps`, with its target `reached` at a step, continues after `last`."""
    if reached is not None and reached < last:
        raise SpecError(
            f"there is nothing to extend: the run has taken {last} steps and reached this target at step {reached}. "
            "Give a target that is further away, or none."
        )
    if steps <= last:
        raise SpecError(
            f"there is nothing to extend: the run has taken {last} steps already, and this spec has {steps}. "
            "Give more `training.steps`."
        )


def describe_changes(differing: Differences) -> str:
    """Describe the changes in a sentence for the journal."""
    return ", ".join(f"{key} {there} -> {now}" for key, (there, now) in differing.items())


def find_last_step(steps: Mapping[int, Step]) -> int:
    """Return the last step in the journal."""
    return max(steps, default=0)


def _find_look_ahead(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield the key and the kind of everything whose values depend on the number of steps."""
    for path, value in walk_values(experiment):
        if getattr(value, "looks_ahead", False):
            yield join_path(path), str(getattr(value, "kind", path[-1]))


def _is_one_of(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)
