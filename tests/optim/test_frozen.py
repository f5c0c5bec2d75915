import multimodal
import pytest
import torch

from gnflow import trees
from gnflow.compiler.plan import plan
from gnflow.compiler.program import compile as build
from gnflow.verify.subject import draw_text, shrink

GAUSS_NEWTON = {"kind": "gauss_newton", "inner_steps": 2, "search": {"kind": "geometric", "microbatches": 1}}
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "weight_decay": 0.1},
    "muon": {"kind": "muon"},
    "soap": {"kind": "soap"},
    "sophia": {"kind": "sophia"},
    "ml_fop_soap": {"kind": "ml_fop_soap", "leaves": 2, "microbatches": 2},
    "by modality": {"kind": "ml_fop_soap", "granularity": "modality", "microbatches": 2},
    "full": GAUSS_NEWTON,
    "layer": {**GAUSS_NEWTON, "blocks": "layer"},
}
STAGE = ["decoder", "text"]


def stepped(optimizer, freeze, steps=2):
    """(model's first weights, weights after some steps, the program)."""
    small = shrink(multimodal.experiment("janus", optimizer, model={"freeze": freeze}))
    program = build(plan(small))
    state = program.init(program.initial())
    first = trees.clone(state.params)
    for step in range(steps):
        state, _ = program.step(state, draw_text(small, program.plan.microbatches, step))
    return first, state.params, program


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parts_stay_bit_for_bit_and_the_others_move(name):
    first, last, program = stepped(OPTIMIZERS[name], STAGE)
    frozen = {row.name for row in program.plan.parameters if row.rule == "frozen"}
    assert frozen == {n for n in first if n.startswith(("blocks.", "norm.", "embedding.", "head."))}
    for parameter in first:
        assert torch.equal(first[parameter], last[parameter]) == (parameter in frozen), parameter


@pytest.mark.parametrize("name", ["adamw", "full"])
def test_without_anything_frozen_everything_moves(name):
    first, last, _ = stepped(OPTIMIZERS[name], [])
    assert not [parameter for parameter in first if torch.equal(first[parameter], last[parameter])]


def test_what_moves_takes_the_steps_of_a_smaller_problem():
    # AdamW goes weight by weight: what is frozen does not matter to the first step of the others.
    (first, partly, _), (_, whole, _) = (stepped(OPTIMIZERS["adamw"], freeze, 1) for freeze in (STAGE, []))
    moved = [parameter for parameter in first if not torch.equal(first[parameter], partly[parameter])]
    assert moved
    for parameter in moved:
        torch.testing.assert_close(partly[parameter], whole[parameter])


def test_the_optimizer_keeps_no_state_of_frozen_weights():
    _, _, program = stepped(OPTIMIZERS["adamw"], STAGE, 0)
    template = program.make_template()
    kept = sum(tensor.numel() for tensor in trees.name_tensors(template.optimizer).values())
    moving = sum(template.params[row.name].numel() for row in program.plan.parameters if row.rule != "frozen")
    assert 2 * moving <= kept <= 2 * moving + 10  # both moments, and a few numbers
