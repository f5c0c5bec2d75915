"""All checks, by the claim that each of them checks."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.verify import behaviour, compiled, derivatives, schedules, state
from gnflow.verify.subject import Make, build_parts


class Check(Protocol):
    """A check raises CheckFailed if its claim does not hold for a small experiment and what `make` builds from it."""

    def __call__(self, experiment: Experiment, make: Make = build_parts) -> None:
        """Checks the claim and returns nothing if it holds."""


SCHEDULE = "honours its schedule"
POSITIVE = "the product is positive semi-definite"
OPTIMIZER: Mapping[str, Check] = {
    "descends on text": behaviour.descends_on_text,
    "descends a parabola": behaviour.descends_a_parabola,
    "descends an ill-conditioned quadratic": behaviour.descends_an_ill_conditioned_quadratic,
    "zero gradients leave finite weights": behaviour.zero_gradients_leave_finite_weights,
    "rank-deficient gradients leave finite weights": behaviour.rank_deficient_gradients_leave_finite_weights,
    "missing gradients disturb nothing": behaviour.missing_gradients_disturb_nothing,
    "is deterministic": state.is_deterministic,
    "resumes bit for bit": state.resumes_bit_for_bit,
    "keeps types and shapes": state.keeps_types_and_shapes,
    SCHEDULE: schedules.honours_its_schedule,
    "counts its micro-batches": state.counts_its_microbatches,
}
GRADIENT: Mapping[str, Check] = {
    "the gradient is the slope of the loss": derivatives.the_gradient_is_the_slope_of_the_loss,
}
CURVATURE: Mapping[str, Check] = {
    "the model touches the loss at its anchor": derivatives.the_model_touches_the_loss_at_its_anchor,
    "the model's gradient is the slope of its value": derivatives.the_models_gradient_is_the_slope_of_its_value,
    "the product is that of finite differences": derivatives.the_product_is_that_of_finite_differences,
    "the product equals the dense matrix": derivatives.the_product_equals_the_dense_matrix,
    "the product is the bend of the model": derivatives.the_product_is_the_bend_of_the_model,
    "the product is symmetric": derivatives.the_product_is_symmetric,
    POSITIVE: derivatives.the_product_is_positive_semidefinite,
}
DIFFERENCE: Mapping[str, Check] = {
    "the difference stands for the tangent": derivatives.the_difference_stands_for_the_tangent,
}
COMPILED: Mapping[str, Check] = {
    "compiled regions equal eager ones, one graph each": compiled.compiled_regions_equal_eager_ones,
}


def select_checks(experiment: Experiment, *, compiling: bool) -> Iterator[tuple[str, Check]]:
    """Selects the checks that concern the experiment: those of curvature only if the optimizer uses it, and those of
    compiled regions only if there are any.
    """
    yield from GRADIENT.items()
    method = experiment.optimizer
    if isinstance(method, spec.GaussNewton):
        convex = method.objective != "newton"
        yield from ((claim, check) for claim, check in CURVATURE.items() if convex or claim != POSITIVE)
        if method.tangent == "difference":
            yield from DIFFERENCE.items()
    yield from ((claim, check) for claim, check in OPTIMIZER.items() if claim != SCHEDULE or spec.has_rate(method))
    if compiling:
        yield from COMPILED.items()
