"""Work out one arm of a study: its spec with all overrides, its trials and its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.experiment import Experiment
from gnflow.spec.extends import Assembled, read_referred
from gnflow.spec.merge import assign
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.study import Study, Tuning
from gnflow.spec.training import Mlflow
from gnflow.spec.tree import Entry, Node, Origin, Scalar, Table, make_plain
from gnflow.spec.validate import validate
from gnflow.study.design.design import ArmDesign, Job, Trial
from gnflow.study.design.draws import Axis, Draw
from gnflow.study.design.overrides import Overrides, assignments, entries_at, fixed, joined, misplaced, node_at, texts
from gnflow.study.design.space import axes, draws, ends
from gnflow.workspace import Workspace


@dataclass(frozen=True)
class Reader:
    """Works out one arm after another. Problems are appended to `problems`."""

    study: Study
    tree: Table
    path: Path
    workspace: Workspace
    problems: list[Problem]

    def arm(self, name: str) -> ArmDesign | None:
        """Work out the arm of this name; None if there is a problem in it."""
        before = len(self.problems)
        base = read_referred(node_at(self.tree, "arms", name, "spec"), self.path, self.workspace.root, self.problems)
        own = joined(self._overrides("set"), self._overrides("arms", name, "set"))
        extra = joined(self._overrides("tuning", "set"), self._overrides("arms", name, "tuning", "set"))
        shared, of_arm = self._overrides("tuning", "space"), self._overrides("arms", name, "tuning", "space")
        if base.tree is None:
            return None
        aim = fixed("training.target.at_most", self.study.target, self._origin("targets"))
        called = fixed("name", name, self._origin("arms", name))
        common = joined({} if _says(base.tree, "name", name) else called, own, aim)
        self._experiment(base, common)
        tuning = self._tuning(name)
        space, trials = self._search(name, tuning, base, joined(common, extra), joined(shared, of_arm))
        spec = (self.path.parent / self.study.arms[name].spec).resolve()
        tuned = self.path.parent / "tuned" / f"{name}.yaml" if trials else None
        tried = self._trials(base, spec, joined(common, extra), trials, tuning.seed if tuning else 0)
        runs = self._runs(base, spec, common, tuned)
        if len(self.problems) > before:
            return None
        return ArmDesign(name, spec, base.files, texts(common), tuning, space, tuple(tried), tuple(runs))

    def _origin(self, *path: str) -> Origin:
        return node_at(self.tree, *path).origin

    def _overrides(self, *path: str) -> Overrides:
        entries = entries_at(self.tree, *path)
        wrong = misplaced(entries)
        self.problems.extend(wrong.values())
        return {key: entry for key, entry in entries.items() if key not in wrong}

    def _experiment(self, base: Assembled, overrides: Overrides) -> Experiment | None:
        """Load the spec with these overrides; None, with problems, if they do not fit."""
        assert base.tree is not None
        before = len(self.problems)
        tree = assign(base.tree, assignments(overrides), self.problems)
        experiment = validate(tree, self.problems, base.complete)
        return None if len(self.problems) > before else experiment

    def _tuning(self, name: str) -> Tuning | None:
        own = self.study.arms[name].tuning
        tuning = own.merge_over(self.study.tuning) if own else self.study.tuning
        return None if tuning is None or tuning.trials == 0 else tuning

    def _search(
        self, name: str, tuning: Tuning | None, base: Assembled, common: Overrides, entries: Overrides
    ) -> tuple[dict[str, Axis], list[Draw]]:
        """Return the space and the draws; None, with problems, if a value or an end of a range does not fit."""
        if tuning is None or base.tree is None:
            return {}, []
        before = len(self.problems)
        for key, entry in entries.items():
            for node in ends(entry.node):
                self._experiment(base, joined(common, {key: Entry(entry.origin, node)}))
        space = axes(tuning.space, entries, base.tree)
        if len(self.problems) > before:
            return space, []
        at = self._origin("arms", name, "tuning") if self.study.arms[name].tuning else self._origin("tuning")
        try:
            return space, draws(name, tuning, space, entries, at)
        except SpecProblems as found:
            self.problems.extend(found.problems)
            return space, []

    def _trials(self, base: Assembled, spec: Path, common: Overrides, found: Sequence[Draw], seed: int) -> list[Trial]:
        seeded = fixed("training.seed", seed, self._origin("tuning"))
        trials = []
        for number, draw in enumerate(found, 1):
            values = {key: Entry(node.origin, node) for key, node in draw.items()}
            if job := self._job(base, f"trial_{number}", spec, {}, joined(common, values, seeded)):
                trials.append(Trial(job, {key: make_plain(node) for key, node in draw.items()}, texts(values)))
        return trials

    def _runs(self, base: Assembled, spec: Path, common: Overrides, tuned: Path | None) -> list[Job]:
        """Make a run for each seed, of the spec or of the tuned spec, which includes the common overrides."""
        jobs = []
        for seed in self.study.seeds:
            seeded = fixed("training.seed", seed, self._origin("seeds"))
            in_file, on_line = (common, seeded) if tuned else ({}, joined(common, seeded))
            jobs.append(self._job(base, f"seed_{seed}", tuned or spec, in_file, on_line))
        return [job for job in jobs if job]

    def _job(self, base: Assembled, label: str, spec: Path, in_file: Overrides, on_line: Overrides) -> Job | None:
        """Make a run of `spec`, which already contains `in_file`, with the other overrides on the command line."""
        experiment = self._experiment(base, joined(in_file, on_line))
        if experiment is not None and isinstance(experiment.tracking, Mlflow):
            on_line = joined(on_line, fixed("tracking.study", self.study.name, self._origin("name")))
            experiment = self._experiment(base, joined(in_file, on_line))
        return None if experiment is None else Job(label, spec, texts(on_line), experiment)


def _says(spec: Node, key: str, value: str) -> bool:
    node = node_at(spec, key)
    return isinstance(node, Scalar) and node.value == value
