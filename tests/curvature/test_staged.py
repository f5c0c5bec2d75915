"""An objective computed a stage at a time is the loss of the whole model: values, gradients, models and products."""

from itertools import accumulate

import multimodal
import pytest
import torch
from multimodal import KINDS
from problems import VARIANTS, build, noise, small
from torch.profiler import ProfilerActivity, profile

from gnflow import trees
from gnflow.compiler.regions import Compiler
from gnflow.curvature.linearised import SURROGATES
from gnflow.curvature.staged import Thrift
from gnflow.models.decoder import build_decoder
from gnflow.models.loss import compute_cross_entropy
from gnflow.spec.model import Decoder

NAMES = [*VARIANTS, *KINDS]
SEVERAL = [Thrift(1), Thrift(3), Thrift(20), Thrift(1, recomputed=True), Thrift(3, recomputed=True)]  # 20: a token each


def problem_of(name):
    return multimodal.small(name) if name in KINDS else small(name)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("thrift", SEVERAL)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_the_loss(name, thrift):
    model, params, tokens = problem_of(name)
    inputs, targets = model.split(tokens)
    found = build(model, thrift=thrift)
    moving = trees.pick(params, model.moving)
    expected, loss = torch.func.grad_and_value(
        lambda part: compute_cross_entropy(model.compute_logits({**params, **part}, inputs), targets)
    )(moving)
    close(found.value(params, tokens), loss)
    gradient, value = found.gradient(params, tokens)
    assert list(gradient) == list(moving)
    close((gradient, value), (expected, loss))


@pytest.mark.parametrize("thrift", SEVERAL[1:])
@pytest.mark.parametrize("form", SURROGATES)
@pytest.mark.parametrize("name", ["default", "tied", *KINDS])
def test_models_and_products_are_those_of_all_logits_and_of_every_block(name, form, thrift):
    model, anchor, tokens = problem_of(name)
    found, expected = build(model, form, thrift), build(model, form)
    direction = noise(anchor, 7)
    params = trees.move_along(anchor, direction, 0.3)
    for names in (model.moving, *model.blocks.values()):
        part = trees.pick(params, names)
        close(found.curved(part, anchor, tokens), expected.curved(part, anchor, tokens))
        along = trees.pick(direction, names)
        close(found.product(along, anchor, tokens), expected.product(along, anchor, tokens))


@pytest.mark.faults
@pytest.mark.parametrize("region", ["gradient", "curved"])
def test_compiled_no_buffer_has_all_logits(region):
    shape = Decoder.model_validate({"layers": 1, "width": 8, "heads": 2, "qk_norm": "none"})
    model, (rows, time), vocabulary = build_decoder(shape, 2048, "plain"), (4, 64), 2048
    found = getattr(build(model, thrift=Thrift(8)), region)
    compiler, anchor = Compiler("default", fullgraph=True), model.init(0)
    compiled = compiler(region, found)
    for seed in (0, 1):
        tokens = torch.randint(vocabulary, (rows, time + 1), generator=torch.Generator().manual_seed(seed))
        params = trees.move_along(anchor, noise(anchor, seed), 0.1)
        arguments = (params, anchor, tokens) if region == "curved" else (params, tokens)
        torch.testing.assert_close(compiled(*arguments), found(*arguments), atol=1e-6, rtol=1e-4)
        assert highest(lambda arguments=arguments: compiled(*arguments)) < 4 * rows * time * vocabulary
        anchor = params
    assert set(compiler.count_graphs().values()) == {1}


@pytest.mark.faults
@pytest.mark.parametrize("region", ["curved", "gradient"])
def test_compiled_the_stages_are_computed_again_and_their_activations_are_never_there_together(region):
    shape = Decoder.model_validate({"layers": 5, "width": 16, "heads": 2, "qk_norm": "none"})
    model, anchor = build_decoder(shape, 32, "plain"), None
    kept, again = (getattr(build(model, thrift=Thrift(1, recomputed)), region) for recomputed in (False, True))
    compiler = Compiler("default", fullgraph=True)
    whole, compiled = compiler(region, kept), compiler(region, again)
    for seed in (0, 1):
        tokens = torch.randint(32, (4, 65), generator=torch.Generator().manual_seed(seed))
        params = trees.move_along(model.init(seed), noise(model.init(seed), seed), 0.1)
        anchor = anchor or model.init(5)
        arguments = (params, anchor, tokens) if region == "curved" else (params, tokens)
        for each in (whole, compiled):
            torch.testing.assert_close(each(*arguments), kept(*arguments), atol=1e-6, rtol=1e-4)
        anchor = params
    assert set(compiler.count_graphs().values()) == {1}, "one graph, whatever the number of layers"
    most, least = (highest(lambda function=function: function(*arguments)) for function in (whole, compiled))
    assert least < 0.7 * most, (least, most)


def highest(function):
    """Bytes allocated at the highest point of a call, by the allocator's own events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = function()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    del kept
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    assert changes
    return max(accumulate(changes))
