"""`gnflow prepare`: tokenize the data of specs into shards."""

from collections.abc import Sequence
from pathlib import Path

from gnflow.data.prepare import prepare as make_shards
from gnflow.errors import DataError, EnvironmentProblem, GnflowError
from gnflow.spec.load import Loaded, load_all


def prepare(specs: Sequence[Path], *, sets: Sequence[str]) -> int:
    """Make or verify the shards of each spec, and say what they hold. All specs are checked before any work begins.

    If the data of one spec has an error, it is raised after the data of the others is ready.
    """
    problems: list[GnflowError] = []
    for loaded in load_all(specs, sets):
        try:
            _prepare(loaded)
        except (DataError, EnvironmentProblem) as problem:
            problems.append(problem)
    if problems:
        raise type(problems[0])("\n".join(dict.fromkeys(str(problem) for problem in problems)))
    return 0


def _prepare(loaded: Loaded) -> None:
    dataset = make_shards(loaded.experiment.data, loaded.workspace, print)
    print(dataset.directory)
    for line in (*dataset.describe(), f"digest    {dataset.digest}"):
        print(f"  {line}")
