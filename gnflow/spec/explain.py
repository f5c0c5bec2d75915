"""Explain keys of a spec: value, meaning, allowed values and origin."""

from collections.abc import Sequence
from dataclasses import dataclass

from gnflow.errors import GnflowError
from gnflow.spec.base import Spec, find_kind
from gnflow.spec.canonical import make_plain
from gnflow.spec.grammar import ROOT, Shape, find_help, list_shapes, summarize
from gnflow.spec.load import Loaded
from gnflow.spec.origins import walk_values
from gnflow.spec.suggest import suggest_key
from gnflow.spec.tree import KeyPath, Origin, Plain, join_path


class UnknownKey(GnflowError):
    """The spec has no such key."""

    exit_code = 2


@dataclass(frozen=True)
class Explanation:
    """One key of a spec."""

    path: KeyPath
    value: object
    help: str
    shape: Shape
    origin: Origin

    @property
    def key(self) -> str:
        """Dotted path."""
        return join_path(self.path)

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        return self.shape.allowed

    @property
    def single(self) -> bool:
        """Whether this is a single value and not a mapping or a list of values."""
        return not isinstance(self.value, Spec) and not (isinstance(self.value, tuple) and self.value)

    def to_json(self) -> dict[str, Plain]:
        """Return the fields for `--json`."""
        return {
            "key": self.key,
            "value": make_plain(self.value),
            "unit": self.shape.unit,
            "help": self.help,
            "allowed": self.allowed,
            "origin": self.origin.to_json(),
        }


def explain_all(loaded: Loaded) -> list[Explanation]:
    """Explain every key, in the order of the grammar."""
    found = []
    for path, value in walk_values(loaded.experiment):
        shape, model = _find_shape(loaded.experiment, path)
        text = find_help(model, str(path[-1])) if model and isinstance(path[-1], str) else ""
        if isinstance(value, Spec):
            text = " ".join(filter(None, (text, summarize(type(value)))))
        found.append(Explanation(path, value, text, shape, loaded.origins[path]))
    return found[1:]


def explain_below(loaded: Loaded, key: str) -> list[Explanation]:
    """Explain `key` and every key inside it. Raises UnknownKey, which suggests the nearest key."""
    path = key.split(".")
    found = [row for row in explain_all(loaded) if [str(step) for step in row.path[: len(path)]] == path]
    if not found:
        raise UnknownKey(_explain_unknown(loaded.experiment, path))
    return found


def _find_shape(experiment: Spec, path: KeyPath) -> tuple[Shape, type[Spec] | None]:
    """Return the shape at `path`, and the model that has the last key."""
    value: object = experiment
    shape, model = ROOT, None
    for step in path:
        if isinstance(step, int):
            assert isinstance(value, tuple)
            value, shape, model = value[step], shape.find_item(step) or shape, None
        else:
            assert isinstance(value, Spec)
            model = type(value)
            value, shape = getattr(value, step), list_shapes(model)[step]
    return shape, model


def _explain_unknown(experiment: Spec, path: Sequence[str]) -> str:
    """Return a sentence about the first step of `path` that fails."""
    value: object = experiment
    shape, known = ROOT, ""
    for step in path:
        place = f" in `{known}`" if known else ""
        if isinstance(value, Spec):
            kind = find_kind(type(value))
            if step not in list_shapes(type(value)):
                place += f" ({kind})" if len(shape.models) > 1 else ""
                more, name = suggest_key(step, shape, kind)
                return f"unknown key `{step}`{place}{more}" + (f"; did you mean `{name}`?" if name else "")
            shape, value = list_shapes(type(value))[step], getattr(value, step)
        elif isinstance(value, tuple):
            if not step.isdecimal() or int(step) >= len(value):
                return f"`{known}` has {len(value)} items, numbered from 0; no `{step}`"
            shape, value = shape.find_item(int(step)) or shape, value[int(step)]
        else:
            what = "not set" if value is None else "a single value"
            return f"`{known}` is {what}; it holds no `{step}`"
        known = f"{known}.{step}" if known else step
    raise AssertionError(f"{'.'.join(path)} is known")
