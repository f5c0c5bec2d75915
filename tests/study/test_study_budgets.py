"""Studies at a budget, over scales, and beyond the edge of a range."""

import json
from pathlib import Path

import pytest
from run_directories import append, begin, end, steps
from studies import STUDY, project

from gnflow.commands.scaling import scaling
from gnflow.errors import SpecError
from gnflow.study.design import pipeline
from gnflow.study.design.choice import choose, write
from gnflow.study.design.design import ArmDesign, Design
from gnflow.study.design.load import load
from gnflow.study.design.widening import widen
from gnflow.train.journal import Step

BUDGET = STUDY.replace("targets: [6.0, 5.0]", "budget: {tokens: 4096}").replace(
    "    set: {training.steps: 1}\n", "    set: {training.rows: 2}\n"
)
SCALES = (
    "scales:\n- {name: w16, set: {model.width: 16}}\n- {name: w32, set: {model.width: 32}, budget: {tokens: 8192}}\n"
)
STEPS = "    optimizer.learning_rate: {low: 0.001, high: 0.1, scale: log}\n"


def append_steps(directory: Path, losses: list[float]) -> list[Step]:
    """Record these held-out losses in a run directory."""
    append(directory, records := steps(losses))
    return records


def take_trials(design: Design, arm: ArmDesign, losses: dict[str, float]) -> None:
    """Write the run directories of finished trials; the loss on the way is lower than the last one."""
    for trial in arm.trials:
        directory = begin(design.locate_run(arm, trial.job), trial.job.experiment)
        end(directory, append_steps(directory, [5.0, 1.0, losses[trial.job.label]]))


def test_with_a_budget_every_run_trains_to_its_end(tmp_path: Path) -> None:
    design = load(project(tmp_path, BUDGET))
    trainings = [job.experiment.training for arm in design.arms for job in arm.jobs]
    assert {(t.tokens, t.steps, t.target) for t in trainings} == {(4096.0, None, None)}
    assert "gnflow compare" in (text := pipeline.compose(design))
    assert text.count("--budget 4096") == 2
    assert "--target" not in text


def test_a_horizon_that_is_drawn_takes_the_place_of_the_budget(tmp_path: Path) -> None:
    drawn = BUDGET.replace(STEPS, STEPS + "    training.steps: {low: 2, high: 9}\n")
    design = load(project(tmp_path, drawn))
    arm = design.find_arm("muon")
    for trial in arm.trials:
        training = trial.job.experiment.training
        assert (training.steps, training.tokens) == (trial.values["training.steps"], None)
    losses = {trial.job.label: 3.0 - 0.1 * place for place, trial in enumerate(arm.trials)}
    take_trials(design, arm, losses)
    write(design, arm, choose(design, arm))
    [best] = [trial for trial in arm.trials if trial.job.label == "trial_2"]
    tuned = [design.load_expected(job) for job in arm.runs]
    assert {run.training.steps for run in tuned if run} == {best.values["training.steps"]}  # one stop for all seeds
    assert "last loss" in design.locate_tuned(arm).read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("budget: {tokens: 4096}", "", "arms are compared at `targets` or at a `budget`, none is given"),
        ("budget: {tokens: 4096}", "budget: {tokens: 4096}\ntargets: [5.0]", "both are given"),
        ("set: {training.rows: 2}", "set: {training.steps: 2}", "`training.steps` is given by `budget`"),
        ("budget: {tokens: 4096}", "targets: [5.0]\nsigma: 0.01", "`sigma` is of the loss at the end of a `budget`"),
        ("  trials: 2", "  trials: 2\n  target: 4.0", "trials of a study with a `budget` run to its end"),
        ("reference: muon", "reference: muon\nscales: [{name: a}, {name: a}]", "two scales are called `a`"),
        ("reference: muon", "reference: muon\nscales: [{name: a, set: {model.widht: 1}}]", "did you mean `width`"),
    ],
)
def test_mistakes_of_budgets_and_scales_are_located(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in BUDGET
    with pytest.raises(SpecError) as caught:
        load(project(tmp_path, BUDGET.replace(old, new)))
    assert words in str(caught.value)
    assert "study.yaml" in str(caught.value)


def test_trials_are_counted_to_a_target_of_their_own(tmp_path: Path) -> None:
    """One that reaches the target of the study sooner, but not the margin, is not the best."""
    study = STUDY.replace("  trials: 2\n", "  trials: 2\n  target: 4.5\n")
    design = load(project(tmp_path, study))
    arm = design.find_arm("adamw")
    targets = [job.experiment.training.target for job in arm.jobs]
    assert [target and target.at_most for target in targets] == [4.5, 4.5, 5.0, 5.0]
    curves = {"trial_1": [5.5, 4.9, 4.8, 4.7], "trial_2": [5.5, 5.4, 5.3, 4.4]}
    for trial in arm.trials:
        directory = begin(design.locate_run(arm, trial.job), trial.job.experiment)
        end(directory, append_steps(directory, curves[trial.job.label]))
    chosen = choose(design, arm)
    assert [(one.trial.job.label, one.steps) for one in chosen.tried] == [("trial_2", 3.0), ("trial_1", None)]
    content = write(design, arm, chosen).read_text()
    assert "# Steps are those to 4.50, where trials stop." in content
    assert "at_most: 5.0" in content  # the runs stop at the target of the study


def test_scales_multiply_the_arms(tmp_path: Path) -> None:
    design = load(project(tmp_path, BUDGET + SCALES))
    assert [arm.name for arm in design.arms] == ["adamw_w16", "muon_w16", "adamw_w32", "muon_w32"]
    assert [arm.runs[0].experiment.model.width for arm in design.arms] == [16, 16, 32, 32]
    assert [arm.runs[0].experiment.training.tokens for arm in design.arms] == [4096, 4096, 8192, 8192]
    assert design.find_reference("w32") == "muon_w32"
    text = pipeline.compose(design)
    assert "pipelines/tiny/comparison_w16.json" in text
    assert "--budget 8192 --reference muon_w32" in " ".join(text.split())
    assert "gnflow study scaling pipelines/tiny" in text


def test_trials_are_added_beyond_the_edge_that_is_best_and_are_counted(tmp_path: Path) -> None:
    folder = project(tmp_path, BUDGET.replace("trials: 2", "trials: 4"))
    design = load(folder)
    arm = design.find_arm("muon")
    rates = {trial.job.label: float(trial.values["optimizer.learning_rate"]) for trial in arm.trials}  # type: ignore[arg-type]
    take_trials(design, arm, {label: 4 - rate for label, rate in rates.items()})
    [edge] = choose(design, arm).edges
    assert (edge.end, edge.value, edge.limit) == ("largest", max(rates.values()), 0.1)
    assert widen(design, [arm])[0].added == 2
    wider = load(folder).find_arm("muon")
    assert [trial.job.label for trial in wider.trials] == [f"trial_{k}" for k in range(1, 7)]
    assert [trial.values for trial in wider.trials[:4]] == [trial.values for trial in arm.trials]
    beyond = [trial.values["optimizer.learning_rate"] for trial in wider.trials[4:]]
    assert all(0.1 < rate <= 1.0 for rate in beyond)  # half of the two decades of the range
    assert wider.added == 2
    assert "trial_muon_6" in pipeline.compose(load(folder))
    take_trials(
        load(folder),
        wider,
        {trial.job.label: abs(float(trial.values["optimizer.learning_rate"]) - beyond[0]) for trial in wider.trials},
    )  # type: ignore[arg-type]
    chosen = choose(load(folder), wider)
    assert chosen.tried[0].trial.job.label == "trial_5"
    assert "2 trials of these 6 lie beyond the ranges of study.yaml." in chosen.remarks
    assert "trials: 6" in write(load(folder), wider, chosen).read_text()


def test_a_best_value_inside_its_range_adds_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path, BUDGET.replace("trials: 2", "trials: 4"))
    design = load(folder)
    arm = design.find_arm("adamw")
    order = sorted(arm.trials, key=lambda trial: trial.values["optimizer.learning_rate"])  # type: ignore[arg-type,return-value]
    take_trials(design, arm, {trial.job.label: abs(place - 1) + 1.0 for place, trial in enumerate(order)})
    assert widen(design, [arm])[0].added == 0
    assert not (folder / "widened.yaml").exists()


def test_a_range_is_continued_only_as_far_as_the_spec_takes_it(tmp_path: Path) -> None:
    momentum = BUDGET.replace(STEPS, "    optimizer.momentum: {low: 0.5, high: 0.9}\n").replace(
        "trials: 2", "trials: 4"
    )
    momentum = momentum.replace("  adamw: ../../specs/adamw.yaml\n", "")
    folder = project(tmp_path, momentum)
    design = load(folder)
    [arm] = design.arms
    values = {trial.job.label: float(trial.values["optimizer.momentum"]) for trial in arm.trials}  # type: ignore[arg-type]
    take_trials(design, arm, {label: 4 - value for label, value in values.items()})
    widen(design, [arm])
    [wider] = load(folder).arms
    assert all(0.9 < float(trial.values["optimizer.momentum"]) < 1 for trial in wider.trials[4:])  # type: ignore[arg-type]


def test_each_edge_is_continued_by_itself_and_in_whole_numbers(tmp_path: Path) -> None:
    space = STEPS + "    training.rows: {low: 1, high: 4}\n    training.evaluate_every: [3, 5, 9]\n"
    study = BUDGET.replace(STEPS, space).replace("trials: 2", "trials: 32").replace("    set: {training.rows: 2}\n", "")
    folder = project(tmp_path, study.replace("  adamw: ../../specs/adamw.yaml\n", ""))
    design = load(folder)
    [arm] = design.arms
    values = {trial.job.label: [float(v) for v in trial.values.values()] for trial in arm.trials}  # type: ignore[arg-type]
    # Best are the fewest rows (there cannot be fewer) and the shortest interval.
    take_trials(design, arm, {label: rows + every - rate for label, (rate, rows, every) in values.items()})
    [outcome] = widen(design, [arm])
    assert outcome.added == 16
    assert "`training.evaluate_every` 2 to 3" in outcome.sentences[0]
    assert outcome.sentences[1:] == (
        "muon: nothing is added beyond `training.rows: 1`, since the spec takes no value that was tried there",
    )
    [wider] = load(folder).arms
    assert {trial.values["training.evaluate_every"] for trial in wider.trials[32:]} == {2, 3}


def test_a_range_close_to_what_the_spec_takes_is_continued_in_more_digits(tmp_path: Path) -> None:
    study = BUDGET.replace(STEPS, "    optimizer.momentum: {low: 0.99, high: 0.999}\n").replace(
        "trials: 2", "trials: 4"
    )
    folder = project(tmp_path, study.replace("  adamw: ../../specs/adamw.yaml\n", ""))
    design = load(folder)
    [arm] = design.arms
    take_trials(design, arm, {t.job.label: -float(t.values["optimizer.momentum"]) for t in arm.trials})  # type: ignore[arg-type]
    [outcome] = widen(design, [arm], 3)
    [wider] = load(folder).arms
    assert outcome.added == len(wider.trials) - 4 > 0
    assert f"{outcome.added} trials added, {len(wider.trials)} in all" in outcome.sentences[0]
    assert all(0.999 <= float(trial.values["optimizer.momentum"]) < 1 for trial in wider.trials[4:])  # type: ignore[arg-type]


def test_if_one_arm_cannot_be_widened_none_is(tmp_path: Path) -> None:
    folder = project(tmp_path, BUDGET.replace("trials: 2", "trials: 4"))
    design = load(folder)
    first, second = design.arms
    take_trials(design, first, {t.job.label: -float(t.values["optimizer.learning_rate"]) for t in first.trials})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="trial"):
        widen(design, [first, second])
    assert not (folder / "widened.yaml").exists()
    assert widen(design, [first])[0].added == 2


def test_scales_are_fitted_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"w16": 5e4, "w32": 2e5, "w64": 1e6}
    scales = "".join(f"- {{name: {name}, set: {{model.width: {name[1:]}}}}}\n" for name in sizes)
    study = BUDGET.replace("  trials: 2", "  trials: 0").replace("tokens: 4096", "tokens: 294912")
    folder = project(tmp_path, f"{study}scales:\n{scales}")
    design = load(folder)
    for arm in design.arms:
        size, factor = sizes[str(arm.scale)], 1.6 if arm.method == "muon" else 1.0
        for job in arm.runs:
            directory = begin(design.locate_run(arm, job), job.experiment, {"parameters": size})
            end(directory, append_steps(directory, [5.0, 4.0, 1.5 + 40 * (factor * size) ** -0.3]))
    assert scaling(folder, against=None, at=[5e6], chart=tmp_path / "law.svg", json=True) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["law"]["factors"]["adamw"] == pytest.approx(1 / 1.6, rel=1e-3)
    assert tree["predicted"]["5e+06"]["muon"][0] == pytest.approx(1.5 + 40 * (1.6 * 5e6) ** -0.3, abs=1e-3)
    assert "adamw has the loss that muon has with 0.62 times the parameters" in tree["verdict"][0]
    assert "held-out loss at the end" in (tmp_path / "law.svg").read_text()
    with pytest.raises(SpecError, match="more than one decade away"):
        scaling(folder, against=None, at=[5e7], chart=None, json=False)
