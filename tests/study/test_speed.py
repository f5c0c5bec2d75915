"""A time is predicted from runs whose passes are about as large, and from no others."""

import json
from pathlib import Path

from gnflow.study.speed import measure_speed


def finished(runs: Path, name: str, one_pass: int, seconds: float, device: str = "cpu") -> None:
    directory = runs / name
    directory.mkdir(parents=True)
    (directory / "experiment.yaml").write_text(f"name: {name}\n")
    (directory / "summary.json").write_text(json.dumps({"time/seconds": seconds, "flops/total": 1e9}))
    regions = {"gradient": {"flops": one_pass}, "update": {"flops": 10}}
    (directory / "plan.json").write_text(json.dumps({"device": device, "regions": regions}))


def test_the_rate_of_a_toy_is_not_that_of_a_large_model(tmp_path: Path) -> None:
    finished(tmp_path, "toy", one_pass=10**7, seconds=1.0)
    assert measure_speed(tmp_path, "cpu", 10**7) == 1e9
    assert measure_speed(tmp_path, "cpu", 10**8) == 1e9
    assert measure_speed(tmp_path, "cpu", 10**9) is None
    assert measure_speed(tmp_path, "cpu", 10**5) is None
    assert measure_speed(tmp_path, "cuda", 10**7) is None


def test_the_nearest_runs_alone_count(tmp_path: Path) -> None:
    finished(tmp_path, "toy", one_pass=10**7, seconds=10.0)
    finished(tmp_path, "large", one_pass=10**10, seconds=1.0)
    assert measure_speed(tmp_path, "cpu", 5 * 10**9) == 1e9
