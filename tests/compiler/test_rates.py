"""The learning rates of a plan, and how `gnflow plan` draws them."""

import re

import pytest
from problems import experiment

from gnflow.commands.plan import _describe_rates
from gnflow.compiler.plan import plan
from gnflow.compiler.rates import trace_rates

OTHERS = {"kind": "adamw", "learning_rate": 0.01, "schedule": {"kind": "linear", "final": 0.1}}
MUON = {"kind": "muon", "learning_rate": 0.02, "others": OTHERS}
WSD = {"kind": "wsd", "warmup": 10, "decay": 0.5}


def test_every_part_is_drawn_in_one_line_with_its_first_peak_and_last_rate() -> None:
    courses = trace_rates(plan(experiment({**MUON, "schedule": WSD}, training={"steps": 100})))
    others, muon = _describe_rates(courses, "utf-8")
    assert re.fullmatch(r"rate others \(adamw\)  █[▁-█]{46}▂  linear: first 0.01, peak 0.01, last 0.00109", others)
    assert re.fullmatch(r"rate muon            ▂[▁-█]{46}▁  wsd: first 0.002, peak 0.02, last 0.0004", muon)
    assert "█" * 15 in muon
    _, letters = _describe_rates(courses, "ascii")
    assert re.fullmatch(r"rate muon            \.[_.:\-=+*#]{46}_  wsd: first 0.002, peak 0.02, last 0.0004", letters)


def test_inside_gauss_newton_all_inner_updates_are_drawn() -> None:
    inner = {"kind": "gauss_newton", "inner": MUON, "inner_steps": 4, "schedule": "linear", "search": "none"}
    others, muon = trace_rates(plan(experiment(inner, training={"steps": 5})))
    assert (others.rule, others.method, muon.rule, muon.schedule) == ("others", "adamw", "muon", "linear")
    assert muon.means == pytest.approx([0.02 * (20 - u) / 20 for u in range(20)])
    assert (muon.first, muon.peak, muon.last) == (muon.means[0], muon.means[0], muon.means[-1])
    assert trace_rates(plan(experiment({"kind": "gauss_newton", "inner": "cg", "search": "none"}))) == []
