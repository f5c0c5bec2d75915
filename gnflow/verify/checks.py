"""Tables of all checks by their claims, and the choice of the checks of an experiment."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from gnflow.compiler.routing import label_rules
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.traits import has_rate
from gnflow.verify import behaviour, compiled, derivatives, schedules, signals, state
from gnflow.verify.subject import Make, build_parts


class Check(Protocol):
    """A function that checks a claim about a small experiment and the parts that `make` builds from it."""

    def __call__(self, experiment: Experiment, make: Make = build_parts) -> None:
        """Check the claim. Raises CheckFailed if it does not hold."""


SCHEDULE = "honours its schedule"
POSITIVE = "the product is positive semi-definite"
OPTIMIZER: Mapping[str, Check] = {
    "descends on text": behaviour.check_descent_on_text,
    "descends a parabola": behaviour.check_descent_on_parabola,
    "descends an ill-conditioned quadratic": behaviour.check_descent_on_ill_conditioned_quadratic,
    "zero gradients leave finite weights": behaviour.check_zero_gradients,
    "rank-deficient gradients leave finite weights": behaviour.check_rank_deficient_gradients,
    "missing gradients disturb nothing": behaviour.check_missing_gradients,
    "is deterministic": state.check_determinism,
    "resumes bit for bit": state.check_resumption,
    "keeps types and shapes": state.check_types_and_shapes,
    SCHEDULE: schedules.check_schedule,
    "counts its micro-batches": state.check_microbatch_count,
}
GRADIENT: Mapping[str, Check] = {
    "the gradient is the slope of the loss": derivatives.check_gradient_of_loss,
}
CURVATURE: Mapping[str, Check] = {
    "the model touches the loss at its anchor": derivatives.check_model_at_anchor,
    "the model's gradient is the slope of its value": derivatives.check_gradient_of_model,
    "the product is that of finite differences": derivatives.check_model_against_finite_differences,
    "the product equals the dense matrix": derivatives.check_model_against_dense_matrix,
    "the product is the bend of the model": derivatives.check_product_against_gradients,
    "the product is symmetric": derivatives.check_symmetry,
    POSITIVE: derivatives.check_positive_semidefiniteness,
}
DIFFERENCE: Mapping[str, Check] = {
    "the difference stands for the tangent": derivatives.check_difference_tangent,
}
BFLOAT16: Mapping[str, Check] = {
    "bfloat16 changes the model by no more than its rounding": derivatives.check_reduced_precision,
}
SIGNALS: Mapping[str, Check] = {
    "the factors of linear layers are those of the product": signals.check_signals,
}
COMPILED: Mapping[str, Check] = {
    "compiled regions equal eager ones, one graph each": compiled.check_compiled_regions,
}


def select_checks(experiment: Experiment, *, compiling: bool) -> Iterator[tuple[str, Check]]:
    """Select the checks that concern the experiment: those of curvature and of linear layers only if the optimizer uses
    them, and those of compiled regions only if there are any.
    """
    yield from GRADIENT.items()
    method = experiment.optimizer
    if isinstance(method, spec.GaussNewton):
        convex = method.objective != "newton"
        yield from ((claim, check) for claim, check in CURVATURE.items() if convex or claim != POSITIVE)
        if method.tangent == "difference":
            yield from DIFFERENCE.items()
        if convex and experiment.training.precision == "bfloat16":
            yield from BFLOAT16.items()
    inner = method.inner if isinstance(method, spec.GaussNewton) else method
    if isinstance(inner, spec.Method) and any(rule.takes_signals for rule in label_rules(inner).values()):
        yield from SIGNALS.items()
    yield from ((claim, check) for claim, check in OPTIMIZER.items() if claim != SCHEDULE or has_rate(method))
    if compiling:
        yield from COMPILED.items()
