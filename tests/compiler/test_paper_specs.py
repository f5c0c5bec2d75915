"""The specs of published sizes plan where their data is not, without the memory that they would train in."""

import resource
from pathlib import Path

import pytest

from gnflow.compiler.plan import plan
from gnflow.spec.load import load

SPECS = {path.stem: path for path in (Path(__file__).parents[2] / "specs" / "paper").glob("*.yaml")}
# Parameters, and tokens of one row, as published.
SIZES = {
    "emu3_8b": (8.5e9, 5120),
    "janus_1b": (1.7e9, 4096),
    "full_gn_45m": (45.4e6, 1024),
    "full_gn_150m": (134.1e6, 1024),
}
GB = 1e9


def test_every_paper_spec_has_its_size_here() -> None:
    assert set(SPECS) == set(SIZES)


@pytest.mark.parametrize("name", SPECS)
def test_it_plans_without_data_and_without_its_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    planned = plan(load(SPECS[name]).experiment)
    parameters, context = SIZES[name]
    assert planned.to_json()["parameters"] == pytest.approx(parameters, rel=0.03)
    assert planned.tokens_microbatch == planned.experiment.training.rows * context
    assert planned.memory["parameters"] == 4 * planned.to_json()["parameters"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < 0.5 * GB
    assert not list(tmp_path.iterdir())
