"""Direct calls of the graphs of a stage."""

import gc
import weakref
from typing import NamedTuple

import pytest
import torch

from gnflow.compiler import direct, stages
from gnflow.compiler.regions import Compiled, Compiler
from gnflow.compiler.stages import CompiledStages
from gnflow.curvature.executor import EAGER, X, apply, keep, push_towards


def mix(weights, x):
    return torch.tanh(x @ weights["w"] + weights["b"]) * x.shape[-1]


class Counted:
    """An executor that counts the calls of regions through torch."""

    def __init__(self):
        self.calls = 0
        self.executor = CompiledStages(self.compile)

    def compile(self, name, function):
        region = Compiled(name, function, "default", fullgraph=True)

        def call(*arguments):
            self.calls += 1
            return region(*arguments)

        return call


def draw(seed, rows=4, unused=False):
    generator = torch.Generator().manual_seed(seed)
    w, b, x, c, goal_w, goal_x = (
        torch.randn(shape, generator=generator) for shape in ((3, 3), (3,), (rows, 3), (rows, 3), (3, 3), (rows, 3))
    )
    moving = {"w": w, X: x, **({"spare": torch.randn(2, generator=generator)} if unused else {})}
    return moving, {"b": b}, {"w": goal_w, X: goal_x}, c


def derive(executor, operator, seed, function=mix, **how):
    moving, rest, goal, cotangent = draw(seed, **how)
    others = (
        (rest,) if operator is keep else (rest, {**goal, **({"spare": moving["spare"]} if "spare" in moving else {})})
    )
    x, pullback, tangents = executor.pull(operator, function, moving, *others)
    return x, tangents, pullback(cotangent)


@pytest.mark.parametrize("operator", [keep, push_towards])
def test_a_second_call_goes_past_torch_and_has_the_same_bits(operator, monkeypatch):
    counted = Counted()
    first = derive(counted.executor, operator, seed=0)
    monkeypatch.setattr(stages, "TRIES", 0)
    by_torch = Counted()
    for seed in (1, 2):
        found = derive(counted.executor, operator, seed)
        torch.testing.assert_close(found, derive(EAGER, operator, seed))
        torch.testing.assert_close(found, derive(by_torch.executor, operator, seed), rtol=0, atol=0)
    assert (counted.calls, by_torch.calls) == (1, 2)
    torch.testing.assert_close(first, derive(EAGER, operator, 0))


def judge(function, point, targets):
    x = apply(function, point)
    distance = x if targets.first is None else x - targets.first
    distance = distance if targets.second is None else distance + 2 * targets.second
    return targets.factor * distance.square().mean(), {"slope": distance, "scale": (x.sum(0),)}


class Goals(NamedTuple):
    first: torch.Tensor | None = None
    second: torch.Tensor | None = None
    factor: int = 1


def call(executor, seed, factor=1, rows=4, second=False):
    moving, rest, goal, _ = draw(seed, rows=rows)
    goals = Goals(None, goal[X], factor) if second else Goals(goal[X], None, factor)
    return executor.call(judge, mix, {**moving, **rest}, goals)


def test_a_second_call_without_a_reverse_pass_goes_past_torch_and_has_the_same_bits(monkeypatch):
    counted = Counted()
    call(counted.executor, 0)
    monkeypatch.setattr(stages, "TRIES", 0)
    by_torch = Counted()
    for seed in (1, 2):
        found = call(counted.executor, seed)
        torch.testing.assert_close(found, call(EAGER, seed))
        torch.testing.assert_close(found, call(by_torch.executor, seed), rtol=0, atol=0)
    assert (counted.calls, by_torch.calls) == (1, 2)


def test_arguments_of_another_structure_or_number_have_their_own_direct_calls():
    counted = Counted()
    cases = [{}, {"second": True}, {"factor": 3}, {"rows": 5}]
    for seed in range(3):
        for how in cases:
            torch.testing.assert_close(call(counted.executor, seed, **how), call(EAGER, seed, **how))
    assert counted.calls == len(cases)


def test_a_result_that_is_an_argument_or_two_views_of_one_memory_is_right_at_every_call():
    counted = Counted()

    def return_argument(function, point):
        return point["w"], apply(function, point)

    def return_views(function, point):
        x = apply(function, point)
        return x, x.mT, x[0]

    for operator in (return_argument, return_views):
        for seed in range(stages.TRIES + 2):
            moving, rest, _, _ = draw(seed)
            point = {**moving, **rest}
            torch.testing.assert_close(
                counted.executor.call(operator, mix, point), EAGER.call(operator, mix, point), rtol=0, atol=1e-6
            )


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks there when it goes on after a break
def test_code_between_graphs_runs_at_every_call():
    def turn(weights, x):
        if weights["sign"].item() > 0:  # here a graph ends
            return torch.tanh(x @ weights["w"])
        return -torch.tanh(x @ weights["w"])

    executor = Compiler("default", fullgraph=False)._stages
    for seed in range(stages.TRIES + 3):
        moving, _, _, cotangent = draw(seed)
        rest = {"sign": torch.tensor(1.0 if seed < stages.TRIES else -1.0)}
        expected = EAGER.pull(keep, turn, moving, rest)
        x, pullback, _ = executor.pull(keep, turn, moving, rest)
        torch.testing.assert_close((x, pullback(cotangent)), (expected[0], expected[1](cotangent)))
        torch.testing.assert_close(executor.call(apply, turn, {**moving, **rest}), expected[0])


def test_a_transform_around_a_direct_call_is_refused_as_before_and_never_ignored():
    counted = Counted()
    moving, rest, _, _ = draw(0)
    point = {**moving, **rest}
    for _ in range(2):
        counted.executor.call(apply, mix, point)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.func.grad(lambda w: counted.executor.call(apply, mix, {**point, "w": w}).sum())(point["w"])


def test_random_numbers_differ_between_direct_calls():
    counted = Counted()

    def disturb(function, point):
        return torch.rand_like(apply(function, point))

    moving, rest, _, _ = draw(0)
    found = [counted.executor.call(disturb, mix, {**moving, **rest}) for _ in range(3)]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_arguments_in_one_memory_are_called_through_torch_until_they_are_apart():
    counted = Counted()
    moving, rest, goal, cotangent = draw(0)
    for _ in range(stages.TRIES + 1):
        _, pullback, _ = counted.executor.pull(push_towards, mix, moving, rest, {**goal, "w": moving["w"]})
        pullback(cotangent)
    assert counted.calls == stages.TRIES + 1
    for seed in (1, 2):
        torch.testing.assert_close(derive(counted.executor, push_towards, seed), derive(EAGER, push_towards, seed))
    assert counted.calls == stages.TRIES + 2


def test_another_shape_is_compiled_and_has_its_own_direct_calls():
    counted = Counted()
    for rows in (4, 5, 4, 5):
        torch.testing.assert_close(
            derive(counted.executor, keep, rows, rows=rows), derive(EAGER, keep, rows, rows=rows)
        )
    assert counted.calls == 2


def test_a_weight_that_the_stage_does_not_use_has_a_slope_of_zero():
    counted = Counted()
    for seed in (0, 1):
        _, _, slopes = derive(counted.executor, keep, seed, unused=True)
        assert torch.equal(slopes["spare"], torch.zeros(2))
    assert counted.calls == 1


def test_a_graph_with_a_tensor_of_no_known_place_is_never_called_directly():
    """Such as a generator among its inputs, a tensor that the function closes over, an output that nobody uses."""
    x, w, c, kept, other = (torch.randn(3) for _ in range(5))
    x_, w_, c_, kept_, other_ = ((t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (x, w, c, kept, other))
    ahead, back = direct.Seen(print, [w_, x_], [kept_, w_]), direct.Seen(print, [w_, c_], [x_])
    arguments, results, slopes = [w, x], [kept], [x]
    assert direct.find_direct(arguments, [ahead], results, c, [back], slopes) is not None
    for strange in (
        ahead._replace(outputs=[kept_, w_, other_]),
        ahead._replace(outputs=[kept_, w_, w_]),
        ahead._replace(inputs=[w_, x_, None]),
        ahead._replace(inputs=[w_, x_, other_]),
    ):
        assert direct.find_direct(arguments, [strange], results, c, [back], slopes) is None
    assert direct.find_direct(arguments, [ahead], results, c, [back._replace(outputs=[x_, other_])], slopes) is None
    assert direct.find_direct(arguments, [], results, c, [back], slopes) is None
    assert direct.find_direct(arguments, [ahead, ahead], results, c, [back], slopes) is None


@pytest.mark.parametrize("form", ["transposed", "expanded", "float64"])
def test_a_cotangent_of_another_form_is_brought_into_the_one_that_was_compiled(form):
    counted = Counted()
    derive(counted.executor, keep, 0, rows=3)
    moving, rest, _, cotangent = draw(1, rows=3)
    other = {"transposed": cotangent.t(), "expanded": cotangent[0].expand(3, 3), "float64": cotangent.double()}[form]
    _, pullback, _ = counted.executor.pull(keep, mix, moving, rest)
    _, expected, _ = EAGER.pull(keep, mix, moving, rest)
    torch.testing.assert_close(pullback(other), expected(other.float()))
    assert counted.calls == 1


def test_a_region_is_called_through_torch_for_good_after_some_tries(monkeypatch):
    monkeypatch.setattr(stages, "find_direct", lambda *_: None)
    counted, watched = Counted(), []
    plain = direct.watch_graphs
    monkeypatch.setattr(stages, "watch_graphs", lambda wanted: watched.append(wanted) or plain(wanted))
    for seed in range(stages.TRIES + 2):
        torch.testing.assert_close(derive(counted.executor, keep, seed), derive(EAGER, keep, seed))
    assert counted.calls == stages.TRIES + 2
    assert watched == [True, True] * stages.TRIES + [False] * 2


def test_the_gradient_is_taken_once():
    counted = Counted()
    derive(counted.executor, keep, 0)
    moving, rest, _, cotangent = draw(1)
    _, pullback, _ = counted.executor.pull(keep, mix, moving, rest)
    pullback(cotangent)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="taken once"):
            pullback(cotangent)


def test_neither_a_tangent_nor_the_arguments_of_a_tangent_are_held_until_the_reverse_pass():
    counted = Counted()
    derive(counted.executor, push_towards, 0)
    moving, rest, goal, _ = draw(1)
    _, pullback, (tangent,) = counted.executor.pull(push_towards, mix, moving, rest, goal)
    held = weakref.ref(tangent), weakref.ref(goal["w"])
    del tangent, goal
    gc.collect()
    assert [each() for each in held] == [None, None]
    assert counted.calls == 1
    assert callable(pullback)
