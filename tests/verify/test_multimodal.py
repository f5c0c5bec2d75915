import multimodal
import pytest
from multimodal import KINDS

from gnflow.curvature.linearised import SURROGATES
from gnflow.verify.checks import CURVATURE, GRADIENT, OPTIMIZER
from gnflow.verify.subject import shrink

FROZEN = {"freeze": ["decoder", "text"]}
GAUSS_NEWTON = {"kind": "gauss_newton", "inner_steps": 2, "search": {"kind": "geometric", "microbatches": 1}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", SURROGATES)
@pytest.mark.parametrize("claim", [*GRADIENT, *CURVATURE])
def test_derivatives_carry_weights_and_mask(claim, objective, kind):
    small = shrink(multimodal.experiment(kind, {**GAUSS_NEWTON, "objective": objective}))
    {**GRADIENT, **CURVATURE}[claim](small)


@pytest.mark.parametrize("model", [{}, FROZEN], ids=["all parts", "frozen"])
@pytest.mark.parametrize(
    "claim", ["resumes bit for bit", "counts its micro-batches", "missing gradients disturb nothing"]
)
def test_optimizers_keep_their_promises_with_frozen_parts_too(claim, model):
    for optimizer in ({"kind": "muon"}, GAUSS_NEWTON):
        OPTIMIZER[claim](shrink(multimodal.experiment("janus", optimizer, model=model)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_copy_keeps_the_form_of_the_data(kind):
    large = multimodal.experiment(kind, {"kind": "soap"})
    small = shrink(large)
    assert small.data.style == small.model.kind == kind
    assert small.data.vocabulary < 20
    assert small.data.channels == large.data.channels
    assert shrink(small) == small
