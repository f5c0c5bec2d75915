"""Load a spec file, its bases and `--set` overrides as an Experiment, and record the origin of every value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.canonical import digest as digest
from gnflow.spec.canonical import format_resolved as format_resolved
from gnflow.spec.experiment import Experiment
from gnflow.spec.extends import assemble
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.merge import override
from gnflow.spec.origins import find_origins
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.tree import KeyPath, Origin
from gnflow.spec.validate import validate
from gnflow.workspace import Workspace


@dataclass(frozen=True)
class Loaded:
    """An experiment and the origins of its values."""

    experiment: Experiment
    origins: Mapping[KeyPath, Origin]
    """The origin of every value and every mapping, by path."""
    path: Path
    workspace: Workspace


def load(path: Path | str, sets: Sequence[str] = ()) -> Loaded:
    """Load the experiment that a file describes, with `key=value` overrides.

    Raises SpecProblems, a SpecError that holds every problem found, and EnvironmentProblem for a plug-in that cannot
    be used.
    """
    path = Path(path)
    workspace = Workspace.find(path)
    with use_kinds_of(workspace):
        problems: list[Problem] = []
        try:
            tree, complete = assemble(path, workspace.root, problems)
        except SpecProblems as fatal:
            raise SpecProblems([*problems, *fatal.problems]) from None
        tree = override(tree, sets, problems)
        experiment = validate(tree, problems, complete)
        if problems or experiment is None:
            raise SpecProblems(problems)
        return Loaded(experiment, find_origins(experiment, tree), path, workspace)


def load_all(paths: Sequence[Path], sets: Sequence[str] = ()) -> list[Loaded]:
    """Load every file. Raises SpecProblems with the problems of all of them."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            loaded.append(load(path, sets))
        except SpecProblems as invalid:
            problems += invalid.problems
    if problems:
        raise SpecProblems(problems)
    return loaded
