"""Kinds by name, before the modules of their classes are imported."""

import re
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.built_in import BUILT_IN, GIVE_WAY

ONE = {"optimizers": "optimizer", "models": "model", "sources": "source", "metrics": "metric", "trackers": "tracker"}
"""Group -> the word for one of its kinds."""
GNFLOW = "gnflow"
"""The place of built-in kinds."""
TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Named:
    """The name of a kind, and the place of its class."""

    group: str
    kind: str
    target: str
    """`module:class`"""
    place: str
    """The place where the name is given, for sentences."""
    folder: Path | None = None
    """The folder that is searched for modules first."""
    distribution: str = ""
    """The distribution that contains the class, with its version."""
    gives_way: bool = False
    """Whether a kind of this name from outside gnflow is used in its place."""
    replaces: str = ""
    """`module:class` of the built-in kind in whose place it is used."""

    @property
    def who(self) -> str:
        """The words that an error about this kind begins with."""
        return f"{ONE[self.group]} `{self.kind}` ({self.place}, {self.target})"


def list_built_in(group: str) -> dict[str, Named]:
    """Return the kinds of a group that come with gnflow, by name."""
    late = GIVE_WAY.get(group, frozenset())
    return {
        kind: Named(group, kind, target, GNFLOW, gives_way=kind in late) for kind, target in BUILT_IN[group].items()
    }
