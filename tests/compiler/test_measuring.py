from pathlib import Path

import multimodal
import pytest
import stranger_metrics as strangers
import torch
from problems import experiment, moment, token_batch

from gnflow.compiler import build as parts
from gnflow.compiler.measuring import build_metrics, measure
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build
from gnflow.errors import EnvironmentProblem, SpecError
from gnflow.metrics.protocol import Metric
from gnflow.optim.protocol import eager
from gnflow.spec import training
from gnflow.spec.training import Loss

MUON = {"kind": "muon"}
OFF = {"mode": "off"}


def test_a_factory_that_returns_something_else_is_refused_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = strangers.TOP_FIVE.partition("    return Metric(")[0] + "    return measure\n"
    declared = strangers.having(experiment(MUON), strangers.metric(tmp_path, monkeypatch, source))
    expected = "the factory `my_metrics:top_five` returned a value of type `function`, expected Metric"
    with pytest.raises(EnvironmentProblem, match=expected):
        plan(declared)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"norm/update": torch.ones(())}, "it measured `norm/update`, and its columns begin with `loss/held_out`, "),
        ({"loss/train": torch.ones(())}, "it measured `loss/train`"),
        ({"loss/held_out": 0.5}, "`loss/held_out` is a float; expected a 0-D tensor"),
        ({"loss/held_out": torch.ones(2)}, "`loss/held_out` has 1 axes; expected a 0-D tensor"),
        (None, "`measure` returned a NoneType; expected columns and their values"),
    ],
)
def test_what_is_measured_is_held_to_the_protocol(found: object, problem: str) -> None:
    metric = Metric(lambda at: found)  # type: ignore[arg-type, return-value]
    with pytest.raises(EnvironmentProblem) as caught:
        measure(Loss(), metric, moment({}, token_batch(1)))
    assert str(caught.value).startswith(f"kind `loss` ({training.__file__}): {problem}")


def test_every_metric_sees_the_first_microbatches_as_many_as_it_asked_for() -> None:
    declared = multimodal.experiment("emu3", {"kind": "adamw"}, metrics=[{"kind": "loss", "microbatches": 2}])
    program = build(plan(declared))
    state = program.init(program.initial())
    rows, time = declared.training.rows, declared.data.context + 1
    batch = multimodal.tokens("emu3", 3, rows, time=time)
    two, three = (program.evaluate(program.make_moment(state, batch[:count])) for count in (2, 3))
    assert two == three
    assert two != program.evaluate(program.make_moment(state, batch[1:]))


def test_the_probes_of_several_metrics_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = experiment(MUON, metrics=["loss", "dominance"], compile=OFF)
    both = strangers.having(both, strangers.metric(tmp_path, monkeypatch))
    program = build(plan(both))
    _, found = program.step(program.init(program.initial()), token_batch(1))
    assert {"dominance/r_min", "top_five/momentum"} <= set(found)


def test_a_probe_that_no_optimizer_would_call_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = strangers.having(experiment({"kind": "adamw"}), strangers.metric(tmp_path, monkeypatch))
    with pytest.raises(SpecError, match="`top_five` measure a momentum, but the optimizer keeps none"):
        plan(declared)


def test_the_network_of_the_run_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ["loss", "cost", "update_norms", "dominance", {"kind": "curvature", "microbatches": 1}]
    declared = experiment(MUON, metrics=metrics, compile={**OFF, "attention": "plain"})
    planned = plan(declared)
    built: list[object] = []
    whole = parts.build_model
    monkeypatch.setattr("gnflow.compiler.build.build_model", lambda *given: built.append(given) or whole(*given))
    program = build(planned)
    assert len(built) == 1
    build(planned, network=program.network)
    assert len(built) == 1
    found = build_metrics(declared, program.network, "flash", eager)
    assert len(built) == 2  # for the curvature, which needs another kernel
    assert [metric.microbatches for metric in found] == [16, 0, 0, 0, 1]
