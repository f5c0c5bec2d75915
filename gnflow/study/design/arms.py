"""Work out one arm of a study: its spec with all overrides, its trials and its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.experiment import Experiment
from gnflow.spec.extends import Assembled, referred
from gnflow.spec.merge import assigned
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.study import Scale, Study, Tuning, Widening
from gnflow.spec.training import Mlflow
from gnflow.spec.tree import Entry, Node, Origin, Scalar, Table, plain
from gnflow.spec.validate import validated
from gnflow.study.design.design import ArmDesign, Job, Trial
from gnflow.study.design.draws import Axis, Draw
from gnflow.study.design.overrides import (
    Overrides,
    assignments,
    entries_at,
    fixed,
    given_by_budget,
    joined,
    misplaced,
    node_at,
    one_horizon,
    texts,
)
from gnflow.study.design.space import axes, draws, ends
from gnflow.study.design.widen import WIDENED, beyond
from gnflow.workspace import Workspace


@dataclass(frozen=True)
class Reader:
    """Works out one arm after another. Problems are appended to `problems`."""

    study: Study
    tree: Table
    path: Path
    workspace: Workspace
    problems: list[Problem]
    widened: Mapping[str, Sequence[Widening]]
    """Trials that `gnflow study widen` added, by arm."""

    def arm(self, method: str, scale: Scale | None = None) -> ArmDesign | None:
        """Work out an arm, at a scale if the study has several; None if there is a problem in it."""
        before, name = len(self.problems), method if scale is None else f"{method}_{scale.name}"
        base = referred(node_at(self.tree, "arms", method, "spec"), self.path, self.workspace.root, self.problems)
        sized = {} if scale is None else self._overrides("scales", self.study.scales.index(scale), "set")
        own = joined(self._overrides("set"), sized, self._overrides("arms", method, "set"))
        self.problems.extend(given_by_budget(own) if self.study.budget else ())
        extra = joined(self._overrides("tuning", "set"), self._overrides("arms", method, "tuning", "set"))
        shared, of_arm = self._overrides("tuning", "space"), self._overrides("arms", method, "tuning", "space")
        if base.tree is None:
            return None
        aim = self._aim(scale)
        called = fixed("name", name, self._origin("arms", method))
        common = joined({} if _says(base.tree, "name", name) else called, own, aim)
        self._experiment(base, common)
        tuning = self._tuning(method)
        space, trials = self._search(method, tuning, base, joined(common, extra), joined(shared, of_arm))
        beyond = self._widened(name, tuning, base, joined(common, extra), space) if trials else []
        spec = (self.path.parent / self.study.arms[method].spec).resolve()
        tuned = self.path.parent / "tuned" / f"{name}.yaml" if trials else None
        tried = self._trials(base, spec, joined(common, extra), [*trials, *beyond], tuning.seed if tuning else 0)
        runs = self._runs(base, spec, common, tuned)
        if len(self.problems) > before:
            return None
        scaled = None if scale is None else scale.name
        return ArmDesign(
            name, spec, base.files, texts(common), tuning, space, tuple(tried), tuple(runs), method, scaled, len(beyond)
        )

    def _aim(self, scale: Scale | None) -> Overrides:
        """Return when a run ends: at the lowest target or, with a budget, at the end of its schedule only."""
        if self.study.budget is None:
            return fixed("training.target.at_most", self.study.target, self._origin("targets"))
        origin, budget = self._origin("budget"), self.study.budget_at(None if scale is None else scale.name)
        return joined(
            fixed("training.target", None, origin),
            fixed("training.steps", None, origin),
            fixed("training.tokens", budget, origin),
        )

    def _origin(self, *path: str | int) -> Origin:
        return node_at(self.tree, *path).origin

    def _overrides(self, *path: str | int) -> Overrides:
        entries = entries_at(self.tree, *path)
        wrong = misplaced(entries)
        self.problems.extend(wrong.values())
        return {key: entry for key, entry in entries.items() if key not in wrong}

    def _widened(
        self, name: str, tuning: Tuning | None, base: Assembled, common: Overrides, space: Mapping[str, Axis]
    ) -> list[Draw]:
        """Return the draws beyond the ranges. A range that no longer is in the space is a problem."""
        found: list[Draw] = []
        for number, widening in enumerate(self.widened.get(name, ()), 1):
            if unknown := [key for key in widening.space if key not in space]:
                where = f"{WIDENED} has trials of `{name}` for `{unknown[0]}`, which its space does not have any more"
                self.problems.append(Problem(self._origin("arms"), f"{where}; delete them there"))
                continue
            assert tuning is not None
            found += beyond(widening, space, tuning, number)
        return found

    def _experiment(self, base: Assembled, overrides: Overrides) -> Experiment | None:
        """Load the spec with these overrides; None, with problems, if they do not fit."""
        assert base.tree is not None
        before = len(self.problems)
        tree = assigned(base.tree, assignments(one_horizon(overrides)), self.problems)
        experiment = validated(tree, self.problems, base.complete)
        return None if len(self.problems) > before else experiment

    def _tuning(self, name: str) -> Tuning | None:
        own = self.study.arms[name].tuning
        tuning = own.over(self.study.tuning) if own else self.study.tuning
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
                trials.append(Trial(job, {key: plain(node) for key, node in draw.items()}, texts(one_horizon(values))))
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
