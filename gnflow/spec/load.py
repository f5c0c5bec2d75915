"""A spec file, the files it extends and `--set`, to an Experiment whose every value knows where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.canonical import digest as digest
from gnflow.spec.canonical import resolved as resolved
from gnflow.spec.experiment import Experiment
from gnflow.spec.extends import assembled
from gnflow.spec.kinds import within
from gnflow.spec.merge import overridden
from gnflow.spec.origins import origins_of
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.tree import KeyPath, Origin
from gnflow.spec.validate import validated
from gnflow.workspace import Workspace


@dataclass(frozen=True)
class Loaded:
    """An experiment, and where it came from."""

    experiment: Experiment
    origins: Mapping[KeyPath, Origin]
    """For the path of every value and of every mapping."""
    path: Path
    workspace: Workspace


def load(path: Path | str, sets: Sequence[str] = ()) -> Loaded:
    """The experiment that a file describes, with `key=value` overrides.

    Raises SpecProblems, a SpecError that holds every problem found, and EnvironmentProblem for a plug-in that cannot
    be used.
    """
    path = Path(path)
    workspace = Workspace.find(path)
    with within(workspace):
        problems: list[Problem] = []
        try:
            tree, complete = assembled(path, workspace.root, problems)
        except SpecProblems as fatal:
            raise SpecProblems([*problems, *fatal.problems]) from None
        tree = overridden(tree, sets, problems)
        experiment = validated(tree, problems, complete)
        if problems or experiment is None:
            raise SpecProblems(problems)
        return Loaded(experiment, origins_of(experiment, tree), path, workspace)


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
