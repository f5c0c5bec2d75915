"""Check of derivatives in float64, against finite differences and a dense Jacobian that share no code with them.

z = f(anchor),  J = df/dw,  d = params - anchor
quadratic      gradient of the model = J' (l'(z) + l''(z) J d)
prox_linear    gradient of the model = J' l'(z + J d)
whitened       gradient of the model = J' (l'(z) + S J d),  S = each target's weight over V, on the ids of its softmax
newton         gradient of the model = l'(w) + l''(w) d,  l = the loss as a function of the weights
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, assert_never, cast

import torch
from torch import Tensor
from torch.nn import functional

from gnflow import trees
from gnflow.curvature.tangents import Tangent
from gnflow.groups import GROUPS
from gnflow.objective import Params
from gnflow.optim.protocol import eager
from gnflow.spec import optimizer as spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.model import Emu3, Janus
from gnflow.spec.multimodal import Multimodal
from gnflow.spec.training import Precision
from gnflow.verify.subject import Make, Parts, add_channels, build_parts, choose_device, draw_noise, draw_start, require

STEP = 1e-4  # of finite differences, along directions of norm 1: errors of 1e-8
CLOSE = 1e-5
EXACT = 1e-9
ROUNDED = 4 * torch.finfo(torch.bfloat16).eps
ROUGH = {torch.float32: 1e-2, torch.float64: 1e-6}  # for models whose tangent is a difference


class Point(NamedTuple):
    """The points of the derivatives: `anchor` for those of the loss, `params` for those of the convex model."""

    parts: Parts
    anchor: Params
    params: Params
    tokens: Tensor
    directions: tuple[Params, ...]
    """Directions of norm 1."""

    def differentiate_model(self, params: Params) -> Params:
        """Return the gradient of the convex model around the anchor."""
        return self.parts.objective.curved(params, self.anchor, self.tokens)[0]

    def multiply_curvature(self, direction: Params) -> Params:
        """Return the curvature of the convex model at `params` times `direction`; exact if the model is quadratic."""
        after, before = (self.differentiate_model(trees.move_along(self.params, direction, h)) for h in (STEP, -STEP))
        return trees.scale(trees.subtract(after, before), 0.5 / STEP)

    def compute_logits(self, params: Params) -> Tensor:
        """Return f(params)."""
        return self.parts.network.compute_logits(params, self.parts.network.split(self.tokens)[0])


def draw_point(
    experiment: Experiment, make: Make, tangent: Tangent = "exact", precision: Precision = "float32"
) -> Point:
    """Draw weights, tokens and directions for the exact derivatives of an experiment without frozen weights."""
    exact = experiment.training.model_copy(update={"precision": precision})
    model = experiment.model
    if isinstance(model, Janus):
        model = model.model_copy(update={"freeze": ()})
    method = experiment.optimizer
    if isinstance(method, spec.GaussNewton):
        method = method.model_copy(update={"tangent": tangent})
    made = make(experiment.model_copy(update={"training": exact, "model": model, "optimizer": method}), eager)
    anchor = trees.map_tensors(lambda w: w.double(), draw_start(experiment, made.network))
    shape = (experiment.training.rows, experiment.data.context + 1)
    ids = torch.randint(experiment.data.vocabulary, shape, generator=torch.Generator().manual_seed(0))
    tokens = add_channels(experiment, ids, 0)
    directions = tuple(_normalise(draw_noise(anchor, seed)) for seed in (11, 12, 13))
    away = trees.move_along(anchor, draw_noise(anchor, 14), 0.1)
    return Point(made, anchor, away, tokens.to(choose_device(experiment)), directions)


def check_gradient_of_loss(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that <gradient, u> is the central difference of the loss along u, at two sets of weights."""
    at = draw_point(experiment, make)
    value = at.parts.objective.value
    for weights in (at.anchor, at.params):
        gradient, loss = at.parts.objective.gradient(weights, at.tokens)
        _require_close(loss, value(weights, at.tokens), EXACT, "the loss that comes with the gradient")
        for u in (_normalise(gradient), *at.directions):
            after, before = (value(trees.move_along(weights, u, h), at.tokens) for h in (STEP, -STEP))
            difference = (after - before) / (2 * STEP)
            _require_close(trees.dot(gradient, u), difference, CLOSE, "the slope of the loss", trees.norm(gradient))


def check_model_at_anchor(experiment: Experiment, make: Make = build_parts) -> None:
    """Check at two anchors that the model has the value and the gradient of the loss there."""
    at = draw_point(experiment, make)
    for anchor in (at.anchor, at.params):
        gradient, loss = at.parts.objective.gradient(anchor, at.tokens)
        touching, value = at.parts.objective.curved(trees.clone(anchor), anchor, at.tokens)
        _require_close(value, loss, EXACT, "the value of the model at its anchor")
        _require_trees_close(touching, gradient, EXACT, "the gradient of the model at its anchor")


def check_gradient_of_model(experiment: Experiment, make: Make = build_parts) -> None:
    """Check the model's gradient away from the anchor against central differences of its value."""
    at = draw_point(experiment, make)
    gradient = at.differentiate_model(at.params)
    for u in (_normalise(gradient), *at.directions):
        points = (trees.move_along(at.params, u, h) for h in (STEP, -STEP))
        after, before = (at.parts.objective.curved(p, at.anchor, at.tokens)[1] for p in points)
        difference = (after - before) / (2 * STEP)
        _require_close(trees.dot(gradient, u), difference, CLOSE, "the slope of the model", trees.norm(gradient))


def check_model_against_finite_differences(experiment: Experiment, make: Make = build_parts) -> None:
    """Check the model's slope along u by central differences of the logits, or of the loss for Newton's model."""
    at = draw_point(experiment, make)
    expected = _difference_loss(experiment, at) if _is_newton(experiment) else _difference_logits(experiment, at)
    gradient = at.differentiate_model(at.params)
    for u in (_normalise(gradient), *at.directions):
        _require_close(
            trees.dot(gradient, u), expected(u), CLOSE, "the model's slope, its bend included,", trees.norm(gradient)
        )


def check_model_against_dense_matrix(experiment: Experiment, make: Make = build_parts) -> None:
    """Check the model's gradient against a dense Jacobian, or for Newton's model against reverse mode taken twice."""
    at = draw_point(experiment, make)
    expected = _reverse_twice(experiment, at) if _is_newton(experiment) else _multiply_dense(experiment, at)
    _require_trees_close(
        at.differentiate_model(at.params), expected, EXACT, "the gradient of the model against the dense Jacobian"
    )


def _difference_logits(experiment: Experiment, at: Point) -> Callable[[Params], Tensor]:
    """Make u -> <cotangent, J u>, with J d and J u by central differences of the logits."""

    def push(direction: Params) -> Tensor:
        length = trees.norm(direction)
        after, before = (at.compute_logits(trees.move_along(at.anchor, direction, h / length)) for h in (STEP, -STEP))
        return (after - before) * length / (2 * STEP)

    moved = push(trees.subtract(at.params, at.anchor))
    cotangent = _compute_cotangent(experiment, at.compute_logits(at.anchor), moved, at.tokens)
    return lambda u: (cotangent * push(u)).sum()


def _difference_loss(experiment: Experiment, at: Point) -> Callable[[Params], Tensor]:
    """Make u -> <g, u> + <u, H d>, by first and by mixed second differences of the loss."""
    entropy, displacement = _build_cross_entropy(experiment, at.tokens), trees.subtract(at.params, at.anchor)
    length, along = trees.norm(displacement), _normalise(displacement)
    far: float = STEP**0.5 / 10  # for second differences, whose rounding error is divided by its square

    def evaluate(u: Params, along_u: float, along_d: float) -> Tensor:
        return entropy.compute_loss(
            at.compute_logits(trees.move_along(trees.move_along(at.anchor, u, along_u), along, along_d))
        )

    def differentiate(u: Params) -> Tensor:
        slope = (evaluate(u, STEP, 0) - evaluate(u, -STEP, 0)) / (2 * STEP)
        corners = evaluate(u, far, far) - evaluate(u, far, -far) - evaluate(u, -far, far) + evaluate(u, -far, -far)
        return slope + length * corners / (4 * far**2)

    return differentiate


def _reverse_twice(experiment: Experiment, at: Point) -> Params:
    """Return g + H d, as the sum of the gradients of the loss and of <g, d>."""
    entropy, displacement = _build_cross_entropy(experiment, at.tokens), trees.subtract(at.params, at.anchor)

    def differentiate(params: Params) -> Params:
        return cast("Params", torch.func.grad(lambda p: entropy.compute_loss(at.compute_logits(p)))(params))

    bend = torch.func.grad(lambda params: trees.dot(differentiate(params), displacement))(at.anchor)
    return trees.add(differentiate(at.anchor), cast("Params", bend))


def _multiply_dense(experiment: Experiment, at: Point) -> Params:
    """Return J' times the cotangent of J d. Reverse mode makes the dense J row by row."""
    # Rows are not batched, since the fused attention has no batching rule.
    rows = torch.func.jacrev(lambda params: at.compute_logits(params).flatten(), chunk_size=1)
    jacobian = cast("Params", rows(at.anchor))
    displacement = trees.subtract(at.params, at.anchor)
    logits = at.compute_logits(at.anchor)
    moved = sum(j.flatten(1) @ displacement[name].flatten() for name, j in jacobian.items())
    cotangent = _compute_cotangent(experiment, logits, cast("Tensor", moved).view_as(logits), at.tokens).flatten()
    return {name: (cotangent @ j.flatten(1)).view_as(at.anchor[name]) for name, j in jacobian.items()}


def check_product_against_gradients(experiment: Experiment, make: Make = build_parts) -> None:
    """Check the product at two anchors against central differences of the model's gradient."""
    first = draw_point(experiment, make)
    for at, u in product((first, first._replace(anchor=first.params)), first.directions):
        found = at.parts.objective.product(u, at.anchor, at.tokens)
        after, before = (at.differentiate_model(trees.move_along(at.anchor, u, h)) for h in (STEP, -STEP))
        expected = trees.scale(trees.subtract(after, before), 0.5 / STEP)
        _require_trees_close(found, expected, CLOSE, "the curvature product at the anchor")


def check_symmetry(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that <u, H v> = <v, H u>."""
    at = draw_point(experiment, make)
    u, v, _ = at.directions
    one, two = at.multiply_curvature(u), at.multiply_curvature(v)
    size = trees.norm(one) + trees.norm(two)
    _require_close(trees.dot(v, one), trees.dot(u, two), CLOSE, "<v, H u> against <u, H v>:", size * 0.1)


def check_positive_semidefiniteness(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that <v, H v> >= 0."""
    at = draw_point(experiment, make)
    for v in (_normalise(at.differentiate_model(at.params)), *at.directions):
        product = at.multiply_curvature(v)
        bend = trees.dot(v, product).item()
        require(bend >= -EXACT * trees.norm(product).item(), f"<v, H v> is {bend:.6g}, expected at least 0")


def check_difference_tangent(experiment: Experiment, make: Make = build_parts) -> None:
    """Check gradients of models whose tangent is a difference against exact ones, in float32 and in float64."""
    rough, exact = draw_point(experiment, make, "difference"), draw_point(experiment, make)
    expected = exact.differentiate_model(exact.params)
    for dtype, allowed in ROUGH.items():
        anchor, params = ({n: w.to(dtype) for n, w in tree.items()} for tree in (rough.anchor, rough.params))
        gradient, _ = rough.parts.objective.curved(params, anchor, rough.tokens)
        found = trees.map_tensors(lambda w: w.double(), gradient)
        what = f"the gradient of the model, its tangent a difference in {str(dtype).removeprefix('torch.')},"
        _require_trees_close(found, expected, allowed, what)


def check_reduced_precision(experiment: Experiment, make: Make = build_parts) -> None:
    """Check the model's gradient and its product in bfloat16 against those in float64."""
    rough, exact = draw_point(experiment, make, precision="bfloat16"), draw_point(experiment, make)
    anchor, params, direction = (
        {n: w.float() for n, w in tree.items()} for tree in (rough.anchor, rough.params, rough.directions[0])
    )
    objective, tokens = exact.parts.objective, exact.tokens
    gradient, _ = rough.parts.objective.curved(params, anchor, tokens)
    product = rough.parts.objective.product(direction, anchor, tokens)
    for found, expected, what in (
        (gradient, exact.differentiate_model(exact.params), "the gradient of the model in bfloat16"),
        (product, objective.product(exact.directions[0], exact.anchor, tokens), "the product in bfloat16"),
    ):
        _require_trees_close(trees.map_tensors(lambda w: w.double(), found), expected, ROUNDED, what)


def _is_newton(experiment: Experiment) -> bool:
    method = experiment.optimizer
    return isinstance(method, spec.GaussNewton) and method.objective == "newton"


def _compute_cotangent(experiment: Experiment, logits: Tensor, tangent: Tensor, tokens: Tensor) -> Tensor:
    """Return l'(z) + l''(z) v, l'(z + v), or l'(z) + S v."""
    method = experiment.optimizer
    form = method.objective if isinstance(method, spec.GaussNewton) else "quadratic"
    entropy = _build_cross_entropy(experiment, tokens)
    slope = torch.func.grad(entropy.compute_loss)
    match form:
        case "quadratic":
            at, bend = cast("tuple[Tensor, Tensor]", torch.func.jvp(slope, (logits,), (tangent,)))
            return at + bend
        case "prox_linear":
            return cast("Tensor", slope(logits + tangent))
        case "whitened":
            weights = (entropy.weights / entropy.weights.sum() / logits.shape[-1]).view(logits.shape[:-1])
            shared = tangent.flatten(0, -2).masked_fill(entropy.outside, 0.0).view_as(tangent)
            return cast("Tensor", slope(logits)) + weights.unsqueeze(-1) * shared
        case "newton":
            raise AssertionError("Newton's model is not one of the linearised logits")
        case _:
            assert_never(form)


class CrossEntropy(NamedTuple):
    """An independent cross-entropy of logits: targets, their weights, and the ids outside each softmax."""

    ids: Tensor
    weights: Tensor
    outside: Tensor

    def compute_loss(self, logits: Tensor) -> Tensor:
        """Return the weighted mean over all targets."""
        allowed = logits.flatten(0, -2) - 1e9 * self.outside
        losses = functional.cross_entropy(allowed, self.ids, reduction="none")
        return losses @ self.weights / self.weights.sum()


def _build_cross_entropy(experiment: Experiment, tokens: Tensor) -> CrossEntropy:
    shape, data = experiment.model, experiment.data
    if not isinstance(data, Multimodal):
        ids = tokens[:, 1:].flatten()
        return CrossEntropy(
            ids, torch.ones_like(ids, dtype=torch.float64), torch.zeros_like(ids, dtype=torch.bool)[:, None]
        )
    ids, groups = tokens[:, 1:, 0].flatten(), tokens[:, 1:, 1].flatten()
    image = shape.image_weight if isinstance(shape, Emu3) else 1.0
    by_group = [0.0, *(image if group.modality == "image" else 1.0 for group in GROUPS)]
    weights = torch.tensor(by_group, dtype=torch.float64, device=tokens.device)[groups]
    codes = torch.arange(data.vocabulary, device=tokens.device) >= data.text_vocabulary
    return CrossEntropy(ids, weights, (codes != (ids >= data.text_vocabulary).unsqueeze(-1)) & isinstance(shape, Janus))


def _normalise(tree: Params) -> Params:
    return trees.scale(tree, 1 / trees.norm(tree))


def _require_close(found: Tensor, expected: Tensor, tolerance: float, what: str, size: Tensor | None = None) -> None:
    """Require a small error relative to `expected`, or to a hundredth of `size` if that is larger."""
    scale = max(abs(expected.item()), 0.0 if size is None else 0.01 * size.item())
    error = abs(found.item() - expected.item()) / scale
    require(
        error <= tolerance,
        f"{what} is {found.item():.8g}, expected {expected.item():.8g}: off by {error:.2g}, allowed {tolerance:g}",
    )


def _require_trees_close(found: Params, expected: Params, tolerance: float, what: str) -> None:
    error = (trees.norm(trees.subtract(found, expected)) / trees.norm(expected)).item()
    worst = max(found, key=lambda name: (found[name] - expected[name]).norm().item())
    require(
        error <= tolerance,
        f"{what} is off by {error:.2g} of its norm, most in `{worst}`; allowed {tolerance:g}",
    )
