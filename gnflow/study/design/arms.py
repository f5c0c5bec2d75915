"""Work out one arm of a study: its spec with all overrides, its trials and its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnflow.spec.experiment import Experiment
from gnflow.spec.extends import Assembled, read_referred
from gnflow.spec.merge import assign
from gnflow.spec.problems import Problem, SpecProblems
from gnflow.spec.study import Scale, Study, Tuning, Widening
from gnflow.spec.tree import Entry, Node, Origin, Scalar, Table, make_plain
from gnflow.spec.validate import validate
from gnflow.study.design.design import ArmDesign, Job, Trial
from gnflow.study.design.draws import Axis, Draw
from gnflow.study.design.overrides import (
    Overrides,
    find_entries,
    find_given_by_budget,
    find_misplaced,
    find_node,
    format_overrides,
    keep_one_horizon,
    make_assignments,
    make_override,
    merge_overrides,
)
from gnflow.study.design.space import draw_trials, list_ends, make_axes
from gnflow.study.design.widen import WIDENED, draw_beyond
from gnflow.workspace import Workspace


@dataclass(frozen=True)
class Reader:
    """A reader of a study file that works out one arm after another. Problems are appended to `problems`."""

    study: Study
    tree: Table
    path: Path
    workspace: Workspace
    problems: list[Problem]
    widened: Mapping[str, Sequence[Widening]]
    """Trials that `gnflow study widen` added, by arm."""

    def work_out_arm(self, method: str, scale: Scale | None = None) -> ArmDesign | None:
        """Work out an arm, at a scale if the study has several. Return None if there is a problem in it."""
        before, name = len(self.problems), method if scale is None else f"{method}_{scale.name}"
        base = read_referred(
            find_node(self.tree, "arms", method, "spec"), self.path, self.workspace.root, self.problems
        )
        sized = {} if scale is None else self._read_overrides("scales", self.study.scales.index(scale), "set")
        own = merge_overrides(self._read_overrides("set"), sized, self._read_overrides("arms", method, "set"))
        self.problems.extend(find_given_by_budget(own) if self.study.budget else ())
        extra = merge_overrides(
            self._read_overrides("tuning", "set"), self._read_overrides("arms", method, "tuning", "set")
        )
        shared, of_arm = (
            self._read_overrides("tuning", "space"),
            self._read_overrides("arms", method, "tuning", "space"),
        )
        if base.tree is None:
            return None
        aim = self._make_aim(scale)
        called = make_override("name", name, self._find_origin("arms", method))
        common = merge_overrides({} if _has_value(base.tree, "name", name) else called, own, aim)
        self._load_experiment(base, common)
        tuning = self._merge_tuning(method)
        for_trials = merge_overrides(common, extra, self._make_trial_aim(method, tuning))
        space, trials = self._make_space(method, tuning, base, for_trials, merge_overrides(shared, of_arm))
        beyond = self._draw_widened(name, tuning, base, for_trials, space) if trials else []
        spec = (self.path.parent / self.study.arms[method].spec).resolve()
        tuned = self.path.parent / "tuned" / f"{name}.yaml" if trials else None
        tried = self._make_trials(base, spec, for_trials, [*trials, *beyond], tuning.seed if tuning else 0)
        runs = self._make_runs(base, spec, common, tuned)
        if len(self.problems) > before:
            return None
        scaled = None if scale is None else scale.name
        return ArmDesign(
            name,
            spec,
            base.files,
            format_overrides(common),
            tuning,
            space,
            tuple(tried),
            tuple(runs),
            method,
            scaled,
            len(beyond),
        )

    def _make_aim(self, scale: Scale | None) -> Overrides:
        """Return when a run ends: at the lowest target or, with a budget, at the end of its schedule only."""
        if self.study.budget is None:
            return make_override("training.target.at_most", self.study.target, self._find_origin("targets"))
        origin, budget = self._find_origin("budget"), self.study.find_budget(None if scale is None else scale.name)
        return merge_overrides(
            make_override("training.target", None, origin),
            make_override("training.steps", None, origin),
            make_override("training.tokens", budget, origin),
        )

    def _make_trial_aim(self, name: str, tuning: Tuning | None) -> Overrides:
        """Return when a trial ends, if not when the runs do."""
        if tuning is None or tuning.target is None:
            return {}
        own = self.study.arms[name].tuning
        where = ("arms", name, "tuning") if own and own.target is not None else ("tuning",)
        return make_override("training.target.at_most", tuning.target, self._find_origin(*where, "target"))

    def _find_origin(self, *path: str | int) -> Origin:
        return find_node(self.tree, *path).origin

    def _read_overrides(self, *path: str | int) -> Overrides:
        entries = find_entries(self.tree, *path)
        wrong = find_misplaced(entries)
        self.problems.extend(wrong.values())
        return {key: entry for key, entry in entries.items() if key not in wrong}

    def _draw_widened(
        self, name: str, tuning: Tuning | None, base: Assembled, common: Overrides, space: Mapping[str, Axis]
    ) -> list[Draw]:
        """Return the draws beyond the ranges. A range that no longer is in the space is a problem."""
        found: list[Draw] = []
        for number, widening in enumerate(self.widened.get(name, ()), 1):
            if unknown := [key for key in widening.space if key not in space]:
                where = f"{WIDENED} has trials of `{name}` for `{unknown[0]}`, which its space does not have any more"
                self.problems.append(Problem(self._find_origin("arms"), f"{where}; delete them there"))
                continue
            assert tuning is not None
            found += draw_beyond(widening, space, tuning, number)
        return found

    def _load_experiment(self, base: Assembled, overrides: Overrides) -> Experiment | None:
        """Load the spec with these overrides; None, with problems, if they do not fit."""
        assert base.tree is not None
        before = len(self.problems)
        tree = assign(base.tree, make_assignments(keep_one_horizon(overrides)), self.problems)
        experiment = validate(tree, self.problems, base.complete)
        return None if len(self.problems) > before else experiment

    def _merge_tuning(self, name: str) -> Tuning | None:
        own = self.study.arms[name].tuning
        tuning = own.merge_over(self.study.tuning) if own else self.study.tuning
        return None if tuning is None or tuning.trials == 0 else tuning

    def _make_space(
        self, name: str, tuning: Tuning | None, base: Assembled, common: Overrides, entries: Overrides
    ) -> tuple[dict[str, Axis], list[Draw]]:
        """Return the space and the draws. Return no draws, and add problems, if a value or an end is wrong."""
        if tuning is None or base.tree is None:
            return {}, []
        before = len(self.problems)
        for key, entry in entries.items():
            for node in list_ends(entry.node):
                self._load_experiment(base, merge_overrides(common, {key: Entry(entry.origin, node)}))
        space = make_axes(tuning.space, entries, base.tree)
        if len(self.problems) > before:
            return space, []
        at = self._find_origin("arms", name, "tuning") if self.study.arms[name].tuning else self._find_origin("tuning")
        try:
            return space, draw_trials(name, tuning, space, entries, at)
        except SpecProblems as found:
            self.problems.extend(found.problems)
            return space, []

    def _make_trials(
        self, base: Assembled, spec: Path, common: Overrides, found: Sequence[Draw], seed: int
    ) -> list[Trial]:
        seeded = make_override("training.seed", seed, self._find_origin("tuning"))
        trials = []
        for number, draw in enumerate(found, 1):
            values = {key: Entry(node.origin, node) for key, node in draw.items()}
            if job := self._make_job(base, f"trial_{number}", spec, {}, merge_overrides(common, values, seeded)):
                trials.append(
                    Trial(
                        job,
                        {key: make_plain(node) for key, node in draw.items()},
                        format_overrides(keep_one_horizon(values)),
                    )
                )
        return trials

    def _make_runs(self, base: Assembled, spec: Path, common: Overrides, tuned: Path | None) -> list[Job]:
        """Make a run for each seed, of the spec or of the tuned spec, which includes the common overrides."""
        jobs = []
        for seed in self.study.seeds:
            seeded = make_override("training.seed", seed, self._find_origin("seeds"))
            in_file, on_line = (common, seeded) if tuned else ({}, merge_overrides(common, seeded))
            jobs.append(self._make_job(base, f"seed_{seed}", tuned or spec, in_file, on_line))
        return [job for job in jobs if job]

    def _make_job(self, base: Assembled, label: str, spec: Path, in_file: Overrides, on_line: Overrides) -> Job | None:
        """Make a run of `spec`, which already contains `in_file`, with the other overrides on the command line."""
        experiment = self._load_experiment(base, merge_overrides(in_file, on_line))
        if experiment is not None and "study" in type(experiment.tracking).model_fields:
            on_line = merge_overrides(
                on_line, make_override("tracking.study", self.study.name, self._find_origin("name"))
            )
            experiment = self._load_experiment(base, merge_overrides(in_file, on_line))
        return None if experiment is None else Job(label, spec, format_overrides(on_line), experiment)


def _has_value(spec: Node, key: str, value: str) -> bool:
    node = find_node(spec, key)
    return isinstance(node, Scalar) and node.value == value
