"""A scaling law with shared exponents and one factor for each method, fitted to losses at several sizes.

    loss of method m at size x = E + A (rho_m x)^(-alpha),   rho of the reference = 1

x is one measure of size: tokens, parameters or FLOPs of a run. Method m reaches at size x the loss that the reference
reaches at size rho_m x. For a given alpha the law is linear in E and in A rho_m^(-alpha), so only alpha is searched.

Source: Volkova et al., "Towards Robust Scaling Laws for Optimizers", arXiv:2602.07712.
Differs: the paper has a factor for parameters and one for tokens; here one measure of size varies, with one factor.
"""

from collections.abc import Sequence
from math import exp, log
from statistics import geometric_mean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats  # type: ignore[import-untyped]  # it ships no types

from gnflow.errors import SpecError
from gnflow.study import figures
from gnflow.study.intervals import LEVEL, Interval

EXPONENTS = (0.02, 4.0)  # smallest and largest exponent that is searched
GRID = 60  # number of exponents that are tried before the best is refined
FLAT = 1e-6  # part of the largest scale below which the losses of a method count as flat
DECADE = 10.0  # how many times beyond the sizes of the fit a prediction may lie
Array = NDArray[np.float64]


class Point(NamedTuple):
    """The loss of one run."""

    method: str
    size: float
    loss: float


class Law(NamedTuple):
    """A fitted law."""

    reference: str
    floor: float
    """E: the loss that no size gets below."""
    scale: float
    """A: the reducible loss of the reference at the geometric mean of the sizes."""
    exponent: float
    """alpha."""
    factors: dict[str, float]
    """rho of each method, which is 1 for the reference."""
    intervals: dict[str, Interval | None]
    """95 % interval of rho of every other method; None if `covariance` is empty."""
    exponent_interval: Interval | None
    """95 % interval of alpha; None if `covariance` is empty."""
    sizes: tuple[float, float]
    """Smallest and largest size of the fit."""
    centre: float
    """Geometric mean of the sizes."""
    residual: float
    """Root mean square of loss minus fit, in nats."""
    degrees: int
    """Number of points minus number of parameters."""
    covariance: tuple[tuple[float, ...], ...]
    """Covariance of the estimates of E, log A, log alpha and the log rho of the other methods, in this order.

    It is empty if there are no more points than parameters, or if the points do not determine all parameters."""

    def predict_loss(self, method: str, size: float) -> float:
        """Return the loss at a size. Raises SpecError more than one decade beyond the sizes of the fit."""
        self._refuse_far(size)
        return _compute_loss(_list_parameters(self), _find_place(method, list(self.factors)), size / self.centre)

    def predict_interval(self, method: str, size: float) -> Interval | None:
        """Return the 95 % interval of the fitted loss at a size, by the delta method; None if `covariance` is empty.

        Raises SpecError more than one decade beyond the sizes of the fit.
        """
        self._refuse_far(size)
        if not self.covariance:
            return None
        slope = _compute_gradient(_list_parameters(self), _find_place(method, list(self.factors)), size / self.centre)
        half = _find_quantile(self.degrees) * float(slope @ np.array(self.covariance) @ slope) ** 0.5
        middle = self.predict_loss(method, size)
        return Interval(middle - half, middle + half)

    def find_size(self, loss: float) -> float | None:
        """Return the size at which the reference has this loss; None below the floor or more than a decade away."""
        if loss <= self.floor:
            return None
        found = log(self.centre) - log((loss - self.floor) / self.scale) / self.exponent
        low, high = self.sizes
        return exp(found) if log(low / DECADE) <= found <= log(high * DECADE) else None

    def _refuse_far(self, size: float) -> None:
        low, high = self.sizes
        if not low / DECADE * (1 - 1e-9) <= size <= high * DECADE * (1 + 1e-9):
            raise SpecError(
                f"a loss at {size:.3g} cannot be predicted from runs at {low:.3g} to {high:.3g}: it is more than one "
                "decade away, where a small error of the exponent or of the floor is a large one of the loss; "
                f"expected {low / DECADE:.3g} to {high * DECADE:.3g}, or runs nearer to it"
            )


def fit(points: Sequence[Point], reference: str) -> Law:
    """Fit the law by least squares. Raises SpecError, with what is missing, if the points do not determine it."""
    methods = [reference, *(name for name in dict.fromkeys(point.method for point in points) if name != reference)]
    _refuse_few(points, methods)
    centre = geometric_mean(point.size for point in points)
    sizes = np.array([point.size / centre for point in points])
    losses = np.array([point.loss for point in points])
    members = np.array([[point.method == name for name in methods] for point in points], dtype=float)

    def measure_misfit(log_alpha: float) -> float:
        return _solve_linear(exp(log_alpha), sizes, losses, members)[1]

    grid = np.linspace(log(EXPONENTS[0]), log(EXPONENTS[1]), GRID)
    best = int(np.argmin([measure_misfit(value) for value in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
    found = optimize.minimize_scalar(measure_misfit, bounds=around, method="bounded", options={"xatol": 1e-9})
    alpha = exp(float(found.x))
    (floor, *scales), squares = _solve_linear(alpha, sizes, losses, members)
    flat = [name for name, scale in zip(methods, scales, strict=True) if scale <= FLAT * max(scales)]
    if flat:
        raise SpecError(f"the losses of {figures.join_words(flat)} do not fall with size: no scaling law fits them")
    _refuse_extreme(alpha)
    factors = {name: (scale / scales[0]) ** (-1 / alpha) for name, scale in zip(methods, scales, strict=True)}
    parameters = np.array([floor, log(scales[0]), log(alpha), *(log(factors[name]) for name in methods[1:])])
    degrees = len(points) - len(parameters)
    covariance = _estimate_covariance(parameters, points, methods, centre, squares, degrees)
    errors = np.sqrt(np.diag(covariance)) if covariance is not None else None
    ends: dict[str, Interval | None] = (
        {name: _make_interval(factors[name], errors[3 + place], degrees) for place, name in enumerate(methods[1:])}
        if errors is not None
        else dict.fromkeys(methods[1:])
    )
    return Law(
        reference,
        float(floor),
        float(scales[0]),
        alpha,
        factors,
        ends,
        None if errors is None else _make_interval(alpha, errors[2], degrees),
        (min(point.size for point in points), max(point.size for point in points)),
        centre,
        (squares / len(points)) ** 0.5,
        degrees,
        () if covariance is None else tuple(tuple(map(float, row)) for row in covariance),
    )


def _refuse_few(points: Sequence[Point], methods: Sequence[str]) -> None:
    if methods[0] not in {point.method for point in points}:
        raise SpecError(f"`{methods[0]}` has no loss at any scale: there is nothing to compare to")
    sizes = {point.size for point in points if point.method == methods[0]}
    if len(sizes) < 3:
        raise SpecError(
            f"a scaling law has a floor, a scale and an exponent, and `{methods[0]}` has losses at {len(sizes)} "
            f"size{'' if len(sizes) == 1 else 's'}; expected runs at three sizes or more"
        )


def _refuse_extreme(alpha: float) -> None:
    """Refuse an exponent at an end of those that are searched: a better one may lie beyond it."""
    low, high = EXPONENTS
    if not low * 1.01 < alpha < high / 1.01:
        raise SpecError(
            f"the points do not determine an exponent: the best one is at an end of {low:g} to {high:g}, which are "
            "searched; expected runs that are farther apart in size, or more seeds"
        )


def _solve_linear(alpha: float, sizes: Array, losses: Array, members: Array) -> tuple[list[float], float]:
    """Return E and A rho_m^(-alpha) of each method, none below 0, with the sum of squared residuals."""
    design = np.column_stack([np.ones_like(sizes), members * sizes[:, None] ** -alpha])
    found, norm = optimize.nnls(design, losses)
    return [float(value) for value in found], float(norm) ** 2


def _find_place(method: str, methods: Sequence[str]) -> int | None:
    """Return the place of a method among those that follow the reference; None for the reference, the first."""
    return methods.index(method) - 1 if method != methods[0] else None


def _list_parameters(law: Law) -> Array:
    others = [log(factor) for name, factor in law.factors.items() if name != law.reference]
    return np.array([law.floor, log(law.scale), log(law.exponent), *others])


def _compute_loss(parameters: Array, place: int | None, size: float) -> float:
    floor, log_scale, log_alpha, *logs = parameters
    shift = 0.0 if place is None else logs[place]
    return float(floor + exp(log_scale - exp(log_alpha) * (shift + log(size))))


def _compute_gradient(parameters: Array, place: int | None, size: float) -> Array:
    """Return the derivatives of the loss by E, log A, log alpha and the log factors."""
    floor, _, log_alpha, *logs = parameters
    alpha, shift = exp(log_alpha), 0.0 if place is None else logs[place]
    reducible = _compute_loss(parameters, place, size) - floor
    slope = np.zeros(len(parameters))
    slope[:3] = 1.0, reducible, -reducible * alpha * (shift + log(size))
    if place is not None:
        slope[3 + place] = -reducible * alpha
    return slope


def _estimate_covariance(
    parameters: Array, points: Sequence[Point], methods: Sequence[str], centre: float, squares: float, degrees: int
) -> Array | None:
    """Return s^2 (J'J)^(-1); None if no degrees are left or if J'J is singular."""
    if degrees <= 0:
        return None
    jacobian = np.array(
        [_compute_gradient(parameters, _find_place(each.method, methods), each.size / centre) for each in points]
    )
    if np.linalg.matrix_rank(jacobian) < len(parameters):
        return None
    return np.linalg.inv(jacobian.T @ jacobian) * squares / degrees


def _make_interval(value: float, error: float, degrees: int) -> Interval:
    width = exp(_find_quantile(degrees) * float(error))
    return Interval(value / width, value * width)


def _find_quantile(degrees: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, degrees))
