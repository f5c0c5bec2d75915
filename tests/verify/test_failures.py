"""Every check can fail: what is broken on purpose is found, and by the check whose claim it breaks."""

import pytest
import torch
from problems import experiment

from gnflow import trees
from gnflow.curvature.linearised import SURROGATES
from gnflow.optim.adamw import adamw
from gnflow.optim.descent import Descent
from gnflow.optim.protocol import Cost, eager
from gnflow.verify import checks
from gnflow.verify.compiled import _require_close
from gnflow.verify.subject import CheckFailed, build_parts, shrink

ADAMW = shrink(experiment({"kind": "adamw", "learning_rate": 0.01, "microbatches": 2}))
GAUSS_NEWTON = shrink(experiment({"kind": "gauss_newton", "inner_steps": 2, "search": "none"}))
ALL = {
    **checks.GRADIENT,
    **checks.CURVATURE,
    **checks.DIFFERENCE,
    **checks.BFLOAT16,
    **checks.SIGNALS,
    **checks.OPTIMIZER,
    **checks.COMPILED,
}


def following(change):
    """AdamW at a constant rate, its updates changed by `change(updates, gradients, params)`."""

    def make(small, jit):
        made, fresh = build_parts(small, jit), adamw(0.01)
        changed = change()

        def update(gradients, state, params):
            updates, after = fresh.update(gradients, state, params)
            return changed(updates, gradients, params), after

        transform = fresh._replace(update=update)
        optimizer = Descent(transform, made.optimizer.stacks, 2, jit, lambda state: state.learning_rate.clone())
        return made._replace(optimizer=optimizer)

    return make


def uphill():
    return lambda updates, gradients, params: trees.scale(updates, -1)


def hidden_count():
    calls = []

    def change(updates, gradients, params):
        calls.append(1)
        return trees.scale(updates, 1 / len(calls))

    return change


def random():
    return lambda updates, gradients, params: trees.scale(updates, torch.rand(()))


def widened():
    return lambda updates, gradients, params: trees.map_tensors(lambda u: u.double(), updates)


def at_a_constant_rate():
    return lambda updates, gradients, params: updates


def normalized():
    return lambda updates, gradients, params: trees.scale(gradients, -0.01 / trees.norm(gradients))


def inverted():
    """Newton's way with the second singular value: none of a matrix of rank one."""

    def step(g):
        return -0.01 * g if g.ndim == 1 else -g / (torch.linalg.svdvals(g)[..., 1:2, None] > 1e-4)

    return lambda updates, gradients, params: trees.map_tensors(step, gradients)


def scaled_by_all_weights():
    return lambda updates, gradients, params: trees.scale(updates, trees.norm(params))


def drifting():
    return lambda updates, gradients, params: trees.map_tensors(lambda u: u + 0.001, updates)


def other_when_compiled():
    return lambda updates, gradients, params: trees.scale(updates, 1.1 if torch.compiler.is_compiling() else 1.0)


def broken_graph():
    def change(updates, gradients, params):
        torch._dynamo.graph_break()
        return updates

    return change


def counted_in_python():
    """A count that is a constant of the graph, though it changes nothing."""
    calls = []

    def change(updates, gradients, params):
        calls.append(1)
        return trees.scale(updates, 1 + 0 * len(calls))

    return change


def again_where_there_is_data(small, jit):
    """A region that is called more often than on the meta device, where the plan counts."""
    made = build_parts(small, jit)
    update = made.optimizer.update

    def called(slope, state, params):
        if not next(iter(params.values())).is_meta:
            update(slope, state, params)
        return update(slope, state, params)

    made.optimizer.update = called
    return made


def without_a_rate(small, jit):
    made = build_parts(small, jit)
    return made._replace(optimizer=Descent(adamw(0.01), made.optimizer.stacks, 2, jit))


BROKEN_OPTIMIZERS = [
    ("descends on text", following(uphill), r"after 13 steps on text the loss is \d\.\d+, expected below \d"),
    ("descends a parabola", following(uphill), "quadratic of condition 1 the value after 13 steps is"),
    ("descends an ill-conditioned quadratic", following(uphill), "quadratic of condition 5000 the value"),
    ("zero gradients leave finite weights", following(normalized), "after a gradient of exact zeros, .* not finite"),
    ("rank-deficient gradients leave finite weights", following(inverted), "after gradients of rank one, .*not finite"),
    ("rank-deficient gradients leave finite weights", following(uphill), "along gradients of rank one the value went"),
    ("missing gradients disturb nothing", following(drifting), r"has no gradient, but moved by .* beyond a decay"),
    ("missing gradients disturb nothing", following(scaled_by_all_weights), "when parameters that the loss does not"),
    ("missing gradients disturb nothing", following(uphill), "with gradients missing the value went from"),
    ("is deterministic", following(random), "two runs from the same start differ: .*, expected identical bits"),
    ("resumes bit for bit", following(hidden_count), "resumed after 6 differs from a whole one: .* by"),
    ("keeps types and shapes", following(widened), r"a step in torch.float32 .* is float64 .*, expected float32"),
    ("keeps types and shapes", without_a_rate, "metrics lack learning_rate"),
    ("honours its schedule", following(at_a_constant_rate), "ends at 0 a step still moves the weights by"),
    ("counts its micro-batches", again_where_there_is_data, "gradient 2, update 2; on the meta .*update 1"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "make", "sentence"), BROKEN_OPTIMIZERS)
def test_a_broken_optimizer_is_found(claim, make, sentence):
    with pytest.raises(CheckFailed, match=sentence):
        ALL[claim](ADAMW, make)
    ALL[claim](ADAMW)


def test_a_micro_batch_that_is_not_used_is_found():
    def make(small, jit):
        made = build_parts(small, jit)
        step = made.optimizer.step
        made.optimizer.step = lambda objective, params, state, batch: step(objective, params, state, batch[:1])
        return made

    with pytest.raises(CheckFailed, match="a step used 1 of 2 given micro-batches"):
        ALL["counts its micro-batches"](ADAMW, make)


def test_state_that_hides_in_python_is_no_matter_of_determinism():
    ALL["is deterministic"](ADAMW, following(hidden_count))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_when_compiled, "region `update`, compiled, differs from eager by 0.1"),
        (broken_graph, "region `update` breaks into several graphs"),
        (counted_in_python, "region `update` was compiled again at step 1, expected one graph"),
    ],
)
def test_a_region_that_does_not_compile_well_is_found(change, sentence):
    torch._dynamo.reset()
    with pytest.raises(CheckFailed, match=sentence):
        ALL["compiled regions equal eager ones, one graph each"](ADAMW, following(change))


def objective(**changes):
    """The parts with some derivatives replaced; each change is made of the objective that is right."""

    def make(small, jit):
        made = build_parts(small, jit)
        return made._replace(
            objective=made.objective._replace(**{name: change(made.objective) for name, change in changes.items()})
        )

    return make


def too_steep(right):
    def gradient(params, tokens):
        slope, value = right.gradient(params, tokens)
        return trees.scale(slope, 1.001), value

    return gradient


def bent_the_wrong_way(right):
    def curved(params, anchor, tokens):
        slope, value = right.gradient(anchor, tokens)
        return trees.subtract(trees.scale(slope, 2), right.curved(params, anchor, tokens)[0]), value

    return curved


def slightly_too_bent(right):
    def curved(params, anchor, tokens):
        displacement = trees.subtract(params, anchor)
        return right.curved(trees.move_along(anchor, displacement, 1.001), anchor, tokens)

    return curved


def shifted(right):
    def curved(params, anchor, tokens):
        slope, value = right.curved(params, anchor, tokens)
        return slope, value + 1e-6

    return curved


def doubled(right):
    return lambda direction, anchor, tokens: trees.scale(right.product(direction, anchor, tokens), 2)


def asymmetric(right):
    def curved(params, anchor, tokens):
        slope, value = right.curved(params, anchor, tokens)
        turned = trees.map_tensors(lambda d: d.roll(1, 0), trees.subtract(params, anchor))
        return trees.move_along(slope, turned, 1e-3), value

    return curved


BROKEN_DERIVATIVES = [
    ("the gradient is the slope of the loss", {"gradient": too_steep}, "slope of the loss is .*, expected .*: off by"),
    ("the model touches the loss at its anchor", {"curved": shifted}, "the value of the model at its anchor is"),
    ("the model touches the loss at its anchor", {"gradient": too_steep}, "gradient of the model at its anchor is off"),
    ("the model's gradient is the slope of its value", {"curved": bent_the_wrong_way}, "the slope of the model is"),
    ("the product is that of finite differences", {"curved": slightly_too_bent}, "slope, its bend included, is"),
    ("the product equals the dense matrix", {"curved": slightly_too_bent}, "against the dense Jacobian is off by"),
    ("the product equals the dense matrix", {"curved": bent_the_wrong_way}, "against the dense Jacobian is off by"),
    ("the product is the bend of the model", {"product": doubled}, "product at the anchor is off by 1 "),
    ("the factors of linear layers are those of the product", {"product": doubled}, "give a product that is off by"),
    ("the product is symmetric", {"curved": asymmetric}, "<v, H u> against <u, H v>: is .*, expected"),
    ("the product is positive semi-definite", {"curved": bent_the_wrong_way}, r"<v, H v> is -.*, expected at least 0"),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "changes", "sentence"), BROKEN_DERIVATIVES)
def test_a_wrong_derivative_is_found(claim, changes, sentence):
    with pytest.raises(CheckFailed, match=sentence):
        ALL[claim](GAUSS_NEWTON, objective(**changes))


def ignores_its_params(region):
    """The region as it is at the weights that it saw first."""
    seen = []

    def make(small, jit):
        made = build_parts(small, jit)
        right = made.objective

        def value(params, tokens):
            seen.append(params)
            return right.value(seen[0], tokens)

        def gradient(params, tokens):
            seen.append(params)
            return right.gradient(seen[0], tokens)

        def curved(params, anchor, tokens):
            seen.append(params)
            return right.curved(seen[0], anchor, tokens)

        def product(direction, anchor, tokens):
            seen.append(direction)
            return right.product(seen[0], anchor, tokens)

        every = {"value": value, "gradient": gradient, "curved": curved, "product": product}
        return made._replace(objective=right._replace(**{region: every[region]}))

    return make


IGNORED = [
    ("the gradient is the slope of the loss", "value"),
    ("the gradient is the slope of the loss", "gradient"),
    ("the model's gradient is the slope of its value", "curved"),
    ("the product is the bend of the model", "product"),
]


@pytest.mark.parametrize(("claim", "region"), IGNORED)
def test_a_region_that_ignores_its_parameters_is_found(claim, region):
    with pytest.raises(CheckFailed):
        ALL[claim](GAUSS_NEWTON, ignores_its_params(region))


@pytest.mark.parametrize(
    ("claim", "region"),
    [("the model touches the loss at its anchor", "curved"), ("the product is the bend of the model", "product")],
)
def test_a_region_that_keeps_its_first_anchor_is_found(claim, region):
    def kept(right):
        seen = []

        def of_the_first(params, anchor, tokens):
            seen.append(anchor)
            return getattr(right, region)(params, seen[0], tokens)

        return of_the_first

    with pytest.raises(CheckFailed):
        ALL[claim](GAUSS_NEWTON, objective(**{region: kept}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_region_that_keeps_the_weights_it_saw_first_is_found(precision):
    """The trap of a compiled closure over a module's own parameters."""
    training = ADAMW.training.model_copy(update={"precision": precision})

    def keeping(small, jit):
        kept = []

        def made_of(name, region, *rest):
            def first(params, *others):
                kept.append(params)
                return region(kept[0] if torch.compiler.is_compiling() else params, *others)

            return jit(name, first if name == "gradient" else region, *rest)

        return build_parts(small, made_of)

    torch._dynamo.reset()
    with pytest.raises(CheckFailed):
        ALL["compiled regions equal eager ones, one graph each"](
            ADAMW.model_copy(update={"training": training}), keeping
        )


@pytest.mark.parametrize("claim", checks.BFLOAT16)
@pytest.mark.parametrize("form", SURROGATES)
def test_a_model_whose_tangent_is_lost_in_bfloat16_is_found(claim, form):
    small = shrink(experiment({"kind": "gauss_newton", "objective": form}, training={"precision": "bfloat16"}))

    def unbent(right):
        return lambda params, anchor, tokens: right.curved(anchor, anchor, tokens)

    def make(asked, jit):
        return (objective(curved=unbent) if asked.training.precision == "bfloat16" else build_parts)(asked, jit)

    ALL[claim](small)
    with pytest.raises(CheckFailed, match="the gradient of the model in bfloat16 is off by"):
        ALL[claim](small, make)


@pytest.mark.parametrize("claim", {**checks.GRADIENT, **checks.CURVATURE})
@pytest.mark.parametrize("form", [*SURROGATES, "newton"])
@pytest.mark.parametrize("model", [{}, {"key_value_heads": 1, "qk_norm": "head", "feedforward": "swiglu"}])
def test_the_derivatives_of_gnflow_hold(claim, form, model):
    shape = {"layers": 2, "width": 16, "heads": 2, **model}
    if (claim, form) == (checks.POSITIVE, "newton"):
        pytest.skip("the Hessian of the loss is not positive")
    method = {"kind": "gauss_newton", "objective": form}
    ALL[claim](shrink(experiment(method, model=shape, training={"precision": "bfloat16"})))


@pytest.mark.parametrize("claim", checks.DIFFERENCE)
@pytest.mark.parametrize("form", SURROGATES)
def test_a_difference_that_stands_for_no_tangent_is_found(claim, form):
    small = shrink(experiment({"kind": "gauss_newton", "objective": form, "tangent": "difference"}))

    def make(asked, jit):
        return (objective(curved=slightly_too_bent) if asked.optimizer.tangent == "difference" else build_parts)(
            asked, jit
        )

    ALL[claim](small)
    with pytest.raises(CheckFailed, match="its tangent a difference in float64, is off by"):
        ALL[claim](small, make)


@pytest.mark.parametrize("claim", {**checks.GRADIENT, **checks.CURVATURE})
def test_they_hold_with_flash_attention_too(claim):
    ALL[claim](shrink(experiment({"kind": "gauss_newton"}, compile={"attention": "flash"})))


def test_every_check_has_something_that_breaks_it():
    found = {claim for claim, *_ in (*BROKEN_OPTIMIZERS, *BROKEN_DERIVATIVES)}
    found |= {*checks.COMPILED, *checks.DIFFERENCE, *checks.BFLOAT16}
    assert found == set(ALL)


def test_what_is_made_by_default_is_what_a_program_runs():
    made = build_parts(ADAMW, eager)
    assert made.optimizer.cost == Cost(solve=2, search=0, passes=1)


def test_new_weights_are_compared_by_their_change_and_may_be_rounded_otherwise():
    start, moved = {"w": torch.tensor([8.0, 1.0])}, ({"w": torch.tensor([8.01, 1.01])}, {})
    close = {"w": moved[0]["w"] * (1 + torch.finfo(torch.float32).eps)}
    _require_close("update", (close, {}), [moved], 1e-3, (None, start))
    with pytest.raises(CheckFailed, match=r"differs from eager by 0\.1 of the size of `0/w`"):
        _require_close("update", ({"w": torch.tensor([8.011, 1.01])}, {}), [moved], 1e-3, (None, start))


def test_in_bfloat16_a_graph_is_close_to_its_eager_twin_or_to_float32():
    rounded, exact = {"w": torch.tensor([1.0, 1.0, 1.25])}, {"w": torch.ones(3)}
    for close in (rounded, exact, {"w": torch.tensor([1.0, 0.97, 1.0])}):
        _require_close("curved", close, [rounded, exact], 0.05, ())
    with pytest.raises(CheckFailed, match=r"differs from eager by 0\.1 .* allowed 0\.05"):
        _require_close("curved", {"w": torch.tensor([1.0, 0.9, 1.0])}, [rounded, exact], 0.05, ())
    with pytest.raises(CheckFailed, match=r"differs from eager by 0\.2 .* allowed 0\.05"):
        _require_close("curved", exact, [rounded], 0.05, ())
