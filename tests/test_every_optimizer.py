"""What every optimizer must do, by the checks of `gnflow verify`. A new optimizer is a row of OPTIMIZERS."""

import pytest
import torch
from problems import experiment

from gnflow.verify import behaviour
from gnflow.verify.checks import COMPILED, OPTIMIZER, select_checks
from gnflow.verify.subject import shrink

SEARCH = {"kind": "geometric", "trials": 5, "microbatches": 2}
ADAMW = {"kind": "adamw", "learning_rate": 0.01}
OTHERS = {"others": ADAMW}
MUON = {"kind": "muon", "learning_rate": 0.01, "scale": "match_rms", **OTHERS}
RMNP = {"kind": "rmnp", "learning_rate": 0.02, **OTHERS}
SOAP = {"kind": "soap", "learning_rate": 0.01, **OTHERS}
FOP = {"kind": "fop_soap", "learning_rate": 0.01, **OTHERS}
FOLD = {"kind": "ml_fop_soap", "learning_rate": 0.01, "leaves": 4, "microbatches": 4, **OTHERS}
GAUSS_NEWTON = {"kind": "gauss_newton", "inner": MUON, "inner_steps": 4, "search": SEARCH}
CG = {"kind": "cg", "microbatches": 2, "iterations": 6}
ADAM = {"preconditioner": "adam", "tolerance": 0.1}
SCHEDULES = ("constant", "global_cosine", "inner_cosine", "constant_with_inner_cosine")

OPTIMIZERS: dict[str, dict[str, object]] = {
    "adamw": {**ADAMW, "microbatches": 2},
    "adamw clipped": {**ADAMW, "clip": 0.5, "weight_decay": 0.1},
    "lion": {"kind": "lion", "learning_rate": 0.01, "weight_decay": 0.1, "microbatches": 2},
    "muon": {**MUON, "microbatches": 2},
    "muon cosine": {**MUON, "schedule": {"kind": "cosine", "warmup": 2}, "nesterov": False},
    "muon ruled": {**MUON, "rules": [{"match": "feedforward.*weight", "use": {"kind": "soap", "learning_rate": 0.01}}]},
    "muon polar_express": {**MUON, "coefficients": "polar_express", "split": 2, "weight_decay": 0.1},
    "muon squared": {**MUON, "second_moment": "before", "split": 2, "equalize": "rows"},
    "ada_muon": {**MUON, "second_moment": "after", "scale": "spectral", "dtype": "bfloat16", "microbatches": 2},
    "rmnp": {**RMNP, "microbatches": 2, "weight_decay": 0.1},
    "rmnp all": {**RMNP, "routing": "all", "scale": "match_rms", "nesterov": False},
    "soap": {**SOAP, "precondition_frequency": 1, "microbatches": 2},
    "soap at times": {**SOAP, "precondition_frequency": 10, "clip": 1.0},
    "soap one-sided": {**SOAP, "max_precondition_dim": 16, "precondition_frequency": 3},
    "soap fresh": {**SOAP, "fresh_factors": True, "shampoo_beta": 0.9, "precondition_frequency": 2},
    "soap normalized": {**SOAP, "normalize_gradients": True},
    "normuon": {**MUON, "kind": "normuon", "microbatches": 2, "split": 2},
    "kl_soap": {**SOAP, "kind": "kl_soap", "precondition_frequency": 2, "microbatches": 2},
    "kl_soap one-sided": {**SOAP, "kind": "kl_soap", "max_precondition_dim": 16, "fresh_factors": True},
    "soap_muon": {**MUON, "kind": "soap_muon", "precondition_frequency": 2},
    "sophia": {"kind": "sophia", "learning_rate": 0.01, "estimate_every": 3, "microbatches": 2},
    "kfac": {"kind": "kfac", "estimate_every": 3, "microbatches": 2},
    "kfac corrected": {"kind": "kfac", "form": "corrected", "kronecker": "frobenius", "microbatches": 2},
    "newton_muon": {"kind": "newton_muon", "estimate_every": 4, "microbatches": 2},
    "muon and sophia": {**MUON, "rules": [{"match": "feedforward", "use": {"kind": "sophia", "estimate_every": 4}}]},
    "muon cautious": {**MUON, "weight_decay": {"kind": "cautious", "rate": 0.2}},
    "soap cautious": {**SOAP, "weight_decay": "cautious", "precondition_frequency": 2},
    "muon hyperball": {**MUON, "hyperball": True, "schedule": {"kind": "cosine", "warmup": 2}, "clip": 1.0},
    "fop_soap hyperball": {**FOP, "hyperball": True, "weight_decay": 0.0},
    "fop_soap": {**FOP, "microbatches": 4, "precondition_frequency": 2},
    "fop_soap shortened": {**FOP, "metric": "root", "layer_step": True, "statistics": "folded", "clip": 1.0},
    "fop_soap control": {**FOP, "beta": 0.0},
    "ml_fop_soap": FOLD,
    "ml_fop_soap uneven": {**FOLD, "leaves": 3, "microbatches": 5, "second_moment": "plain"},
    "gauss_newton adamw": {**GAUSS_NEWTON, "inner": ADAMW},
    "gauss_newton soap": {**GAUSS_NEWTON, "inner": {**SOAP, "precondition_frequency": 2}},
    "gauss_newton rmnp": {**GAUSS_NEWTON, "inner": {**RMNP, "microbatches": 2}},
    "layerwise": {**GAUSS_NEWTON, "blocks": "layer", "average": 0.5},
    "layerwise soap": {**GAUSS_NEWTON, "blocks": "layer", "inner": {**SOAP, "precondition_frequency": 3, "clip": 1.0}},
    "layerwise fop_soap": {**GAUSS_NEWTON, "blocks": "layer", "inner": {**FOP, "precondition_frequency": 3}},
    "gauss_newton averaged": {**GAUSS_NEWTON, "average": 0.5},
    "prox_linear": {**GAUSS_NEWTON, "inner": RMNP, "objective": "prox_linear", "search": "none"},
    "cg": {**GAUSS_NEWTON, "inner": CG},
    "cg cold": {**GAUSS_NEWTON, "inner": {**CG, **ADAM}, "warm_start": False, "inner_steps": 1},
    "cg layerwise": {**GAUSS_NEWTON, "inner": CG, "inner_steps": 2, "blocks": "layer", "objective": "whitened"},
    "gauss_newton decrement": {**GAUSS_NEWTON, "search": {"kind": "decrement", "adaptive": True, "microbatches": 2}},
    "cg layerwise decrement": {**GAUSS_NEWTON, "inner": CG, "blocks": "layer", "search": "decrement"},
    "gauss_newton bracket": {**GAUSS_NEWTON, "search": {"kind": "bracket", "microbatches": 2}},
    "cg soap": {**GAUSS_NEWTON, "inner": {**CG, "preconditioner": "soap"}, "inner_steps": 2},
    "cg ekfac": {**GAUSS_NEWTON, "inner": {**CG, "preconditioner": "ekfac"}, "inner_steps": 2},
    "cg layerwise ekfac": {**GAUSS_NEWTON, "inner": {**CG, "preconditioner": "ekfac"}, "blocks": "layer"},
    "gauss_newton kfac": {**GAUSS_NEWTON, "inner": {"kind": "kfac", "form": "corrected", "estimate_every": 2}},
    "layerwise sophia": {**GAUSS_NEWTON, "inner": {"kind": "sophia", "learning_rate": 0.03}, "blocks": "layer"},
    "cg layerwise soap": {**GAUSS_NEWTON, "inner": {**CG, "preconditioner": "soap"}, "blocks": "layer"},
    "newton": {**GAUSS_NEWTON, "objective": "newton", "average": {"kind": "ema", "decay": 0.5}},
    "newton cg": {**GAUSS_NEWTON, "objective": "newton", "inner": CG, "blocks": "layer"},
    "gauss_newton reset": {**GAUSS_NEWTON, "inner_state": "reset", "damping": 0.1},
    "gauss_newton checks": {**GAUSS_NEWTON, "checks": [1, 2], "inner_state": "reset"},
    "gauss_newton reused": {**GAUSS_NEWTON, "search": {**SEARCH, "fresh": False}},
    "whitened": {**GAUSS_NEWTON, "objective": "whitened", "blocks": "layer"},
    "difference": {**GAUSS_NEWTON, "tangent": "difference"},
    "layerwise difference": {**GAUSS_NEWTON, "objective": "prox_linear", "blocks": "layer", "tangent": "difference"},
    **{f"gauss_newton {schedule}": {**GAUSS_NEWTON, "schedule": schedule} for schedule in SCHEDULES},
}  # fmt: skip
COMPILED_HERE = ("sophia",)  # others: tests/compiler/test_program.py, and `make faults`
COMPILED_ELSEWHERE = (
    "cg cold", "soap fresh", "kfac corrected", "ml_fop_soap uneven", "prox_linear", "difference", "cg soap", "newton",
)  # fmt: skip
# The least that the descents must reach: nats of text, and parts of a quadratic.
LEAST = {
    behaviour.check_descent_on_text: 0.3,
    behaviour.check_descent_on_parabola: 0.02,
    behaviour.check_descent_on_ill_conditioned_quadratic: 0.02,
}


def small(name):
    return shrink(experiment(OPTIMIZERS[name]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_row_is_checked_as_it_is_written(name):
    """Nothing of it is cut down."""
    assert small(name).optimizer == experiment(OPTIMIZERS[name]).optimizer


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        (name, claim)
        for name, row in OPTIMIZERS.items()
        for claim, _ in select_checks(experiment(row), compiling=False)
        if claim in OPTIMIZER
    ],
)
def test_every_optimizer(name, claim):
    check = OPTIMIZER[claim]
    check(small(name), **({"by": LEAST[check]} if check in LEAST else {}))


@pytest.mark.parametrize("claim", COMPILED)
@pytest.mark.parametrize("name", COMPILED_HERE)
def test_some_compiled_optimizers(name, claim):
    torch._dynamo.reset()
    COMPILED[claim](small(name))


@pytest.mark.faults
@pytest.mark.parametrize("claim", COMPILED)
@pytest.mark.parametrize("name", COMPILED_ELSEWHERE)
def test_every_compiled_optimizer(name, claim):
    test_some_compiled_optimizers(name, claim)
