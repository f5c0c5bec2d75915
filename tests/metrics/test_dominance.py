import json
from pathlib import Path

import polars
import pytest
import tiny
import torch
from problems import experiment, noise, token_batch

from gnflow import trees
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build
from gnflow.metrics.dominance import measure_dominance
from gnflow.spec.experiment import Experiment
from gnflow.train.loop import run
from gnflow.workspace import Workspace

COLUMNS = {"dominance/r_min", "dominance/r_avg", "dominance/r_max"}
MUON = {"kind": "muon", "momentum": 0.9}


def by_hand(v: torch.Tensor) -> list[float]:
    """The ratios of one matrix, entry by entry."""
    v = (v.mT if v.shape[0] > v.shape[1] else v).double()
    ratios = []
    for i, row in enumerate(v):
        others = [abs(row @ other).item() for j, other in enumerate(v) if j != i]
        ratios.append((row @ row).item() / (sum(others) / len(others) + 1e-10))
    return ratios


def test_the_ratios_are_those_of_the_definition() -> None:
    shapes = {"square": (5, 5), "wide": (4, 9), "tall": (9, 4), "stack": (3, 6, 4)}
    momentum = noise({name: torch.empty(shape) for name, shape in shapes.items()}, 1)
    matrices = [v for x in momentum.values() for v in (x if x.ndim == 3 else [x])]
    ratios = [by_hand(v) for v in matrices]
    assert len(ratios) == 6
    expected = {
        "dominance/r_min": sum(min(r) for r in ratios) / 6,
        "dominance/r_avg": sum(sum(r) / len(r) for r in ratios) / 6,
        "dominance/r_max": sum(max(r) for r in ratios) / 6,
    }
    measured = measure_dominance(momentum)
    assert {name: value.item() for name, value in measured.items()} == pytest.approx(expected, rel=1e-4)
    assert all(value.ndim == 0 and value.dtype == torch.float32 for value in measured.values())


def test_orthogonal_rows_and_zeros_have_finite_ratios() -> None:
    assert measure_dominance({"w": torch.eye(4)})["dominance/r_min"].item() == pytest.approx(1e10)
    assert measure_dominance({"w": torch.zeros(4, 4)})["dominance/r_max"].item() == 0


def test_a_matrix_of_one_row_does_not_count() -> None:
    w = noise({"w": torch.empty(3, 4)}, 1)
    assert measure_dominance({**w, "row": torch.ones(1, 7), "column": torch.ones(7, 1)}) == measure_dominance(w)
    assert measure_dominance({"row": torch.ones(1, 7)}) == {}


@pytest.mark.parametrize("clip", [None, 0.01])
def test_what_is_measured_is_the_momentum_before_the_update(clip: float | None) -> None:
    planned = plan(experiment({**MUON, "clip": clip}, metrics=["loss", "dominance"], compile={"mode": "off"}))
    program = build(planned)
    params = program.initial()
    batch = token_batch(1)
    gradient, _ = program.objective.gradient(params, batch[0])
    _, metrics = program.step(program.init(trees.clone(params)), batch)
    # After one update the momentum is a multiple of the gradient, as clipped.
    size = (1 - 0.9**2) * (1.0 if clip is None else clip / trees.norm(gradient))
    hidden = {row.name: size * gradient[row.name] for row in planned.parameters if row.rule == "muon"}
    expected = {name: value.item() for name, value in measure_dominance(hidden).items()}
    assert {name: metrics[name].item() for name in COLUMNS} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "optimizer",
    [
        MUON,
        {"kind": "rmnp"},
        {"kind": "adamw", "rules": [{"match": "up", "use": "muon"}]},
        {"kind": "fop_soap", "rules": [{"match": "up", "use": "rmnp"}]},
        {"kind": "gauss_newton", "inner": "muon", "inner_steps": 2, "search": "none"},
    ],
)
def test_every_method_with_a_momentum_has_it_and_without_the_metric_none_has(optimizer: dict[str, object]) -> None:
    for metrics, found in ((["loss", "dominance"], COLUMNS), (["loss"], set())):
        program = build(plan(experiment(optimizer, metrics=metrics, compile={"mode": "off"})))
        _, values = program.step(program.init(program.initial()), token_batch(program.plan.microbatches))
        assert {name for name in values if name.startswith("dominance/")} == found


@pytest.mark.faults
def test_measuring_changes_no_weight_and_adds_no_graph() -> None:
    torch.compiler.reset()
    ends = []
    for metrics in (["loss"], ["loss", "dominance"]):
        program = build(plan(experiment(MUON, metrics=metrics)))
        state = program.init(program.initial())
        for step in range(3):
            state, _ = program.step(state, token_batch(1, step))
        assert program.count_graphs() == {"embed.keep": 1, "apply_block.keep": 1, "apply_head.gradient": 1, "update": 1}
        ends.append(state.params)
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], atol=1e-5, rtol=1e-4)


def test_a_run_keeps_the_ratios_in_its_journal_and_its_table(tmp_path: Path) -> None:
    root = tiny.write_project(tmp_path / "project")
    tree = {**tiny.tiny("muon", steps=3), "metrics": [{"kind": "loss", "microbatches": 2}, "dominance"]}
    run(Experiment.model_validate(tree), Workspace(root))
    directory = root / "runs" / "tiny"
    table = polars.read_parquet(directory / "metrics.parquet").filter(polars.col("step") > 0)
    assert set(table.columns) >= COLUMNS
    assert table.select((polars.col("dominance/r_min") <= polars.col("dominance/r_avg")).all()).item()
    assert table.select((polars.col("dominance/r_avg") <= polars.col("dominance/r_max")).all()).item()
    journal = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    text = json.dumps(journal)
    assert text.count("dominance/r_avg") == len(table) == 3
