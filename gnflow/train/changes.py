"""What may change in the spec of an existing run: keys that change no result, and a later end.

A run of 6 steps is the beginning of a run of 12 if no step depends on the number of steps. With a schedule that decays
towards the end, steps do depend on it, so such a run cannot be extended.
"""

from collections.abc import Iterator, Mapping

from gnflow.errors import SpecError
from gnflow.spec.base import Spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.schedules import Constant, ConstantWithInnerCosine
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


def neutral(key: str, experiment: Experiment) -> bool:
    """Whether a key changes no result. With `rollback` the schedule of checkpoints changes it."""
    if key == "training.checkpoint_every" and experiment.training.on_nonfinite == "rollback":
        return False
    return _is_one_of(key, _NEUTRAL)


def of_the_end(key: str) -> bool:
    """Whether a key says when the run ends."""
    return _is_one_of(key, _END)


def refused(differing: Differences, experiment: Experiment, extend: bool) -> bool:
    """Whether a run of the stored spec cannot continue under this spec."""
    return any(not neutral(key, experiment) and not (extend and of_the_end(key)) for key in differing)


def may_be_extended(differing: Differences, experiment: Experiment) -> bool:
    """Whether `extend` would let the existing run continue under this spec."""
    return not refused(differing, experiment, extend=True) and not any(_looking_ahead(experiment, ""))


def require_no_look_ahead(experiment: Experiment) -> None:
    """Raise SpecError if a step depends on the number of steps."""
    for key, kind in _looking_ahead(experiment, ""):
        raise SpecError(
            f"`{key}` is `{kind}`, which looks ahead: its values depend on the number of steps, so the run that is "
            "there is not the beginning of a longer one.\nGive the longer run another name, or begin again with "
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


def told(differing: Differences) -> str:
    """Describe the changes in a sentence for the journal."""
    return ", ".join(f"{key} {there} -> {now}" for key, (there, now) in differing.items())


def last_step(steps: Mapping[int, Step]) -> int:
    """Return the last step in the journal."""
    return max(steps, default=0)


def _looking_ahead(part: Spec, path: str) -> Iterator[tuple[str, str]]:
    for name in type(part).model_fields:
        value, key = getattr(part, name), f"{path}.{name}" if path else name
        if name == "schedule" and isinstance(value, Spec):
            # A length below 1 is a fraction of the run, so it depends on the end of the run.
            shares = isinstance(getattr(value, "warmup", 0), float)
            if not isinstance(value, Constant | ConstantWithInnerCosine) or shares:
                yield key, str(getattr(value, "kind", name))
        elif name == "average" and path == "training" and getattr(value, "kind", None) == "tail":
            yield key, "tail"
        elif isinstance(value, Spec):
            yield from _looking_ahead(value, key)


def _is_one_of(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)
