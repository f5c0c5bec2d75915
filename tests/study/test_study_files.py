from pathlib import Path

import pytest
from studies import STUDY, project

from gnflow.errors import SpecError
from gnflow.study.design.cost import list_remarks
from gnflow.study.design.design import Design
from gnflow.study.design.load import load


def values(design: Design, arm: str) -> list[object]:
    return [trial.values["optimizer.learning_rate"] for trial in design.find_arm(arm).trials]


def wrong(tmp_path: Path, old: str, new: str) -> str:
    assert old in STUDY
    folder = project(tmp_path, STUDY.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load(folder)
    return str(caught.value)


def test_every_run_is_worked_out(tmp_path: Path) -> None:
    design = load(project(tmp_path))
    adamw, muon = design.arms
    assert [job.label for job in adamw.jobs] == ["trial_1", "trial_2", "seed_1", "seed_2"]
    assert [trial.job.experiment.training.seed for trial in adamw.trials] == [0, 0]
    assert [job.experiment.training.seed for job in muon.runs] == [1, 2]
    assert [job.experiment.training.steps for job in muon.jobs] == [1, 1, 1, 1]
    assert {job.experiment.training.target.at_most for arm in design.arms for job in arm.jobs} == {5.0}
    assert design.locate_run(muon, muon.runs[0]) == tmp_path / "runs" / "tiny" / "muon" / "seed_1"


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_draws_are_in_range_distinct_and_the_same_every_time(tmp_path: Path, method: str) -> None:
    text = STUDY.replace("trials: 2", f"trials: 16\n  method: {method}")
    folder = project(tmp_path, text)
    drawn = values(load(folder), "adamw")
    assert drawn == values(load(folder), "adamw")
    assert len(set(drawn)) == 16
    assert all(isinstance(value, float) and 0.001 <= value <= 0.1 for value in drawn)
    # As many below the geometric mean as above, as near as chance allows; Sobol points are split evenly.
    below = sum(value < 0.01 for value in drawn if isinstance(value, float))
    assert below == 8 if method == "sobol" else 2 <= below <= 14
    (folder / "study.yaml").write_text(text.replace("seed: 0", "seed: 7"))
    assert set(values(load(folder), "adamw")) != set(drawn)


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    grid = STUDY.replace("trials: 2", "method: grid").replace(
        "{low: 0.001, high: 0.1, scale: log}", "[0.01, 0.02, 0.04]"
    )
    assert values(load(project(tmp_path, grid)), "muon") == [0.01, 0.02, 0.04]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: tiny", "name: other", ["study.yaml:2:", "expected the name of the folder of the study, `tiny`"]),
        ("training.steps: 1", "training.stepz: 1", ["study.yaml:7:", "did you mean `steps`"]),
        ("training.steps: 1", "training.seed: 1", ["study.yaml:7:", "given by `seeds`"]),
        ("low: 0.001", "low: -1", ["study.yaml:13:", "scale `log` needs a `low` greater than 0"]),
        ("learning_rate: {", "learning_rat: {", ["study.yaml:13:", "did you mean `learning_rate`"]),
        ("reference: muon", "reference: mun", ["study.yaml:15:", "did you mean `muon`"]),
        ("seeds: [1, 2]", "seeds: [1, 1]", ["study.yaml:8:", "1 is given twice"]),
        ("../../specs/muon.yaml", "../../specs/mun.yaml", ["study.yaml:6:", "mun.yaml"]),
        ("trials: 2", "trials: many", ["study.yaml:10:"]),
        ("targets: [6.0, 5.0]", "tragets: [6.0]", ["did you mean `targets`"]),
    ],
)
def test_mistakes_are_located(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    message = wrong(tmp_path, old, new)
    assert all(word in message for word in words), message


def test_a_tuning_of_its_own_overrides_field_by_field(tmp_path: Path) -> None:
    own = "set: {training.steps: 1}\n    tuning: {trials: 3, set: {training.rows: 4}}"
    design = load(project(tmp_path, STUDY.replace("set: {training.steps: 1}", own)))
    adamw, muon = design.arms
    assert (len(adamw.trials), len(muon.trials)) == (2, 3)
    assert [trial.job.experiment.training.rows for trial in muon.trials] == [4, 4, 4]
    assert [job.experiment.training.rows for job in muon.runs] == [2, 2]


@pytest.mark.parametrize(
    ("study", "arm", "remarks"),
    [
        ("{trials: 2, target: 4.5,", "", []),
        ("{trials: 2,", "{target: 4.5}", ["the arms are not tuned to one target (adamw 5.00, muon 4.50)"]),
        (
            "{trials: 2, target: 4.5,", "{target: null}",
            ["the arms are not tuned to one target (adamw 4.50, muon 5.00)"],
        ),
        (
            "{trials: 2,", "{target: 9.0}",
            [
                "the arms are not tuned to one target (adamw 5.00, muon 9.00)",
                "trials of muon stop at 9.00, before the runs do at 5.00: give `tuning.target` a lower value",
            ],
        ),
    ],
)  # fmt: skip
def test_trials_that_stop_at_unequal_targets_or_too_early_are_told(
    tmp_path: Path, study: str, arm: str, remarks: list[str]
) -> None:
    space = "space: {optimizer.learning_rate: {low: 0.001, high: 0.1, scale: log}}}"
    head, _, tail = STUDY.partition("tuning:\n")
    content = f"{head}tuning: {study} seed: 0, {space}\ntargets:{tail.partition('targets:')[2]}"
    if arm:
        content = content.replace("set: {training.steps: 1}", f"set: {{training.steps: 1}}\n    tuning: {arm}")
    assert [remark for remark in list_remarks(load(project(tmp_path, content))) if "seed" not in remark] == remarks


def test_trials_of_another_study_count_as_tuning(tmp_path: Path) -> None:
    folder = project(
        tmp_path, STUDY.replace("set: {training.steps: 1}", "set: {training.steps: 1}\n    tuning: {trials: 0}")
    )
    untuned = [remark for remark in list_remarks(load(folder)) if "tuned equally" in remark]
    assert untuned == ["the arms are not tuned equally (trials: adamw 2, muon 0)"]
    spec = tmp_path / "specs" / "muon.yaml"
    spec.write_text(f"{spec.read_text()}tuning: {{trials: 2}}\n")
    assert not any("tuned equally" in remark for remark in list_remarks(load(folder)))
