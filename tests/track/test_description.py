import json
from pathlib import Path

import pytest
from run_directories import begin, experiment

from gnflow.track import description


def test_the_resolved_spec_is_flattened(tmp_path: Path) -> None:
    begin(tmp_path, experiment(seed=3))
    parameters = description.describe(tmp_path).parameters
    assert parameters["optimizer.inner.learning_rate"] == "0.02"
    assert parameters["training.seed"] == "3"
    assert parameters["training.tokens"] == "null"
    assert parameters["optimizer.warm_start"] == "true"
    assert parameters["optimizer.inner.others.betas"] == "[0.9, 0.95]"
    assert parameters["metrics.1.kind"] == "cost"


def test_a_long_value_is_cut_to_what_mlflow_takes(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(f"name: {'x' * 7000}\n")
    value = description.describe(tmp_path).parameters["name"]
    assert len(value) == 6000
    assert value.endswith("x…")


def test_tags_say_where_a_run_comes_from(tmp_path: Path) -> None:
    begin(tmp_path, experiment())
    tags = description.describe(tmp_path).tags
    assert tags["gnflow.spec_digest"] == "5" * 64
    assert tags["gnflow.data_digest"] == "d" * 64
    assert tags["gnflow.git_commit"] == tags["mlflow.source.git.commit"] == "34d9879aa"
    assert tags["gnflow.git_dirty"] == "true"
    assert tags["gnflow.run_directory"] == str(tmp_path)


def test_a_directory_without_provenance_has_fewer_tags(tmp_path: Path) -> None:
    assert "gnflow.git_commit" not in description.describe(tmp_path).tags


@pytest.mark.parametrize(
    ("word", "status"), [("complete", "FINISHED"), ("preempted", "KILLED"), ("diverged", "FAILED"), ("?", "RUNNING")]
)
def test_the_summary_tells_how_a_run_ended(tmp_path: Path, word: str, status: str) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"status": word}))
    assert description.read_status(tmp_path, "RUNNING") == status


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("loss/held_out", "loss/held_out"),
        ("angle[0]", "angle_0_"),
        ("../a//b", "a/b"),
        ("", "_"),
        ("a" * 300, "a" * 250),
    ],
)
def test_metric_names_become_keys_that_mlflow_takes(name: str, key: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert description.make_metric_key(name) == key
    _validate_metric_name(key)
