"""A kind by its name, before the module of its class is imported."""

import re
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.built_in import BUILT_IN, GIVE_WAY

ONE = {"optimizers": "optimizer", "models": "model", "sources": "source", "metrics": "metric"}
"""Group -> what one of its kinds is called."""
GNFLOW = "gnflow"
"""The place of what is built in."""
TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Named:
    """A kind by its name, and where the class is."""

    group: str
    kind: str
    target: str
    """`module:class`"""
    place: str
    """Where the name is given, for sentences."""
    folder: Path | None = None
    """Where modules are looked for first."""
    distribution: str = ""
    """What was installed with it, by name and version."""
    gives_way: bool = False
    """Whether a kind of this name from outside gnflow is used in its place."""
    replaces: str = ""
    """`module:class` of the built-in kind in whose place it is used."""

    @property
    def who(self) -> str:
        """The words that an error about this kind begins with."""
        return f"{ONE[self.group]} `{self.kind}` ({self.place}, {self.target})"


def built_in_kinds(group: str) -> dict[str, Named]:
    """Return the kinds of a group that come with gnflow, by name."""
    late = GIVE_WAY.get(group, frozenset())
    return {
        kind: Named(group, kind, target, GNFLOW, gives_way=kind in late) for kind, target in BUILT_IN[group].items()
    }
