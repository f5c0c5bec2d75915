"""A kind by its name, before the module of its class is imported."""

import re
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.built_in import BUILT_IN

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

    @property
    def who(self) -> str:
        """The words that an error about this kind begins with."""
        return f"{ONE[self.group]} `{self.kind}` ({self.place}, {self.target})"


def list_built_in(group: str) -> dict[str, Named]:
    """Return the kinds of a group that come with gnflow, by name."""
    return {kind: Named(group, kind, target, GNFLOW) for kind, target in BUILT_IN[group].items()}
