import json

import pytest
from problems import experiment

from gnflow.compiler.plan import plan

ADAMW = {"kind": "adamw", "microbatches": 2}


def training(**more: object) -> dict[str, object]:
    return {"steps": 20, "rows": 2, "start": "scratch", "device": "cpu", **more}


def test_evaluations_are_counted_with_the_starting_weights_and_the_last_ones() -> None:
    def times(**more: object) -> int:
        return plan(experiment(ADAMW, training=training(**more))).evaluation.times

    assert [times(evaluate_every=every) for every in (1, 3, 10, 40)] == [21, 8, 3, 2]


def test_their_cost_is_that_of_their_forward_passes() -> None:
    planned = plan(experiment(ADAMW, metrics=[{"kind": "loss", "microbatches": 5}], training=training()))
    found, forward = planned.evaluation, planned.regions["value"].flops
    assert (found.passes, found.flops) == (21 * 5, 21 * 5 * forward)
    assert found.share == pytest.approx(found.flops / (found.flops + 20 * planned.flops))
    assert json.loads(json.dumps(planned.to_json()))["evaluation"] == {
        "every": 1, "times": 21, "passes": 105, "flops": found.flops, "share": found.share,
    }  # fmt: skip


def test_curvature_is_counted_when_it_is_due() -> None:
    loss, curvature = {"kind": "loss", "microbatches": 1}, {"kind": "curvature", "every": 10, "microbatches": 2}
    without, there = (
        plan(experiment(ADAMW, metrics=metrics, training=training())).evaluation
        for metrics in ([loss], [loss, curvature])
    )
    assert there.passes - without.passes == 3 * 2 * (6 * 32 + (6 + 3) * 8 + 1)  # three blocks, with the embedding's


def test_evaluation_that_takes_more_than_a_tenth_is_said_with_what_to_write_instead() -> None:
    dear = plan(experiment(ADAMW, training=training(evaluate_every=1))).evaluation
    assert dear.share > 0.5
    assert dear.remark is not None
    assert dear.remark.startswith(
        f"evaluation takes {dear.share:.0%} of the FLOPs of this run, since it comes after every"
    )
    assert f"`training.evaluate_every: {dear.cheap}`" in dear.remark
    long = training(steps=2000, evaluate_every=dear.cheap)
    assert plan(experiment(ADAMW, training=long)).evaluation.remark is None
    longer = training(steps=2000, evaluate_every=dear.cheap - 1)
    assert plan(experiment(ADAMW, training=longer)).evaluation.remark is not None


def test_null_evaluates_as_often_as_a_tenth_of_the_work_allows() -> None:
    chosen = plan(experiment(ADAMW, training=training(steps=2000, evaluate_every=None))).evaluation
    assert chosen.every == chosen.cheap > 1
    assert chosen.share == pytest.approx(0.1, abs=0.005)
    large = {"kind": "adamw", "microbatches": 200}
    assert plan(experiment(large, training=training(evaluate_every=None))).evaluation.every == 1


def test_without_a_metric_on_held_out_data_nothing_is_evaluated() -> None:
    found = plan(experiment(ADAMW, metrics=["cost"], training=training(evaluate_every=None))).evaluation
    assert (found.times, found.flops, found.remark, found.every) == (0, 0, None, 1)
