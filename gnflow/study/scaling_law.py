"""A scaling law with shared exponents and one factor for each method, fitted to losses at several sizes.

    loss of method m at size x = E + A (rho_m x)^(-alpha),   rho of the reference = 1

x is one measure of size: tokens, parameters or FLOPs of a run. Method m reaches at size x the loss that the reference
reaches at size rho_m x. For a given alpha the law is linear in E and in A rho_m^(-alpha), so only alpha is searched.

Source: Volkova et al., "Towards Robust Scaling Laws for Optimizers", arXiv:2602.07712.
Differs: the paper has a factor for parameters and one for tokens; here one measure of size varies, with one factor.
"""

from collections.abc import Iterator, Sequence
from math import exp, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats  # type: ignore[import-untyped]  # it ships no types

from gnflow.errors import SpecError
from gnflow.study.intervals import LEVEL, Interval

EXPONENTS = (0.02, 4.0)  # smallest and largest exponent that is searched
GRID = 60  # number of exponents that are tried before the best is refined
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
    """95 % interval of rho of every other method; None if there are no more points than parameters."""
    exponent_interval: Interval | None
    sizes: tuple[float, float]
    """Smallest and largest size of the fit."""
    centre: float
    """Geometric mean of the sizes."""
    residual: float
    """Root mean square of loss minus fit, in nats."""
    degrees: int
    """Number of points minus number of parameters."""
    covariance: tuple[tuple[float, ...], ...]
    """Of E, log A, log alpha and the log factors of the other methods; empty if `degrees` is 0."""

    def loss(self, method: str, size: float) -> float:
        """Return the loss at a size. Raises SpecError more than one decade beyond the sizes of the fit."""
        self._refuse_far(size)
        return _loss(_parameters(self), self._place(method), size / self.centre)

    def interval(self, method: str, size: float) -> Interval | None:
        """Return the 95 % interval of the fitted loss at a size, by the delta method. Raises SpecError like `loss`."""
        self._refuse_far(size)
        if not self.covariance:
            return None
        slope = _gradient(_parameters(self), self._place(method), size / self.centre)
        half = _quantile(self.degrees) * float(slope @ np.array(self.covariance) @ slope) ** 0.5
        middle = self.loss(method, size)
        return Interval(middle - half, middle + half)

    def size(self, loss: float) -> float | None:
        """Return the size at which the reference has this loss; None below the floor or more than a decade away."""
        if loss <= self.floor:
            return None
        found = self.centre * ((loss - self.floor) / self.scale) ** (-1 / self.exponent)
        return found if self.sizes[0] / DECADE <= found <= self.sizes[1] * DECADE else None

    def _place(self, method: str) -> int | None:
        """Return the place of the method among the factors that were fitted; None for the reference."""
        others = [name for name in self.factors if name != self.reference]
        return None if method == self.reference else others.index(method)

    def _refuse_far(self, size: float) -> None:
        low, high = self.sizes
        if not low / DECADE * (1 - 1e-9) <= size <= high * DECADE * (1 + 1e-9):
            raise SpecError(
                f"a loss at {size:.3g} cannot be told from runs at {low:.3g} to {high:.3g}: it is more than one decade "
                "away, where a small error of the exponent or of the floor is a large one of the loss; "
                f"expected {low / DECADE:.3g} to {high * DECADE:.3g}, or runs nearer to it"
            )


def fit(points: Sequence[Point], reference: str) -> Law:
    """Fit the law by least squares. Raises SpecError, with what is missing, if the points do not determine it."""
    methods = [reference, *(name for name in dict.fromkeys(point.method for point in points) if name != reference)]
    _refuse_few(points, methods)
    centre = exp(float(np.mean([log(point.size) for point in points])))
    sizes = np.array([point.size / centre for point in points])
    losses = np.array([point.loss for point in points])
    members = np.array([[point.method == name for name in methods] for point in points], dtype=float)

    def misfit(log_alpha: float) -> float:
        return _linear(exp(log_alpha), sizes, losses, members)[1]

    grid = np.linspace(log(EXPONENTS[0]), log(EXPONENTS[1]), GRID)
    best = int(np.argmin([misfit(value) for value in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
    found = optimize.minimize_scalar(misfit, bounds=around, method="bounded", options={"xatol": 1e-9})
    alpha = exp(float(found.x))
    (floor, *scales), squares = _linear(alpha, sizes, losses, members)
    if min(scales) <= 0:
        flat = _name_flat(methods, scales)
        raise SpecError(f"the losses of {flat} do not fall with size: no scaling law fits them")
    factors = {name: (scale / scales[0]) ** (-1 / alpha) for name, scale in zip(methods, scales, strict=True)}
    parameters = np.array([floor, log(scales[0]), log(alpha), *(log(factors[name]) for name in methods[1:])])
    degrees = len(points) - len(parameters)
    covariance = _covariance(parameters, points, methods, centre, squares, degrees)
    errors = np.sqrt(np.diag(covariance)) if covariance is not None else None
    ends: dict[str, Interval | None] = (
        {name: _around(factors[name], errors[3 + place], degrees) for place, name in enumerate(methods[1:])}
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
        None if errors is None else _around(alpha, errors[2], degrees),
        (min(point.size for point in points), max(point.size for point in points)),
        centre,
        (squares / len(points)) ** 0.5,
        degrees,
        () if covariance is None else tuple(tuple(map(float, row)) for row in covariance),
    )


def _name_flat(methods: Sequence[str], scales: Sequence[float]) -> str:
    """Name the methods whose scale is not above 0."""
    return ", ".join(name for name, scale in zip(methods, scales, strict=True) if scale <= 0)


def _refuse_few(points: Sequence[Point], methods: Sequence[str]) -> None:
    if methods[0] not in {point.method for point in points}:
        raise SpecError(f"`{methods[0]}` has no loss at any scale: there is nothing to compare to")
    sizes = {point.size for point in points if point.method == methods[0]}
    if len(sizes) < 3:
        raise SpecError(
            f"a scaling law has a floor, a scale and an exponent, and `{methods[0]}` has losses at {len(sizes)} "
            f"size{'' if len(sizes) == 1 else 's'}; expected runs at three sizes or more"
        )


def _linear(alpha: float, sizes: Array, losses: Array, members: Array) -> tuple[list[float], float]:
    """Return E and A rho_m^(-alpha) of each method, none below 0, with the sum of squared residuals."""
    design = np.column_stack([np.ones_like(sizes), members * sizes[:, None] ** -alpha])
    found, norm = optimize.nnls(design, losses)
    return [float(value) for value in found], float(norm) ** 2


def _parameters(law: Law) -> Array:
    others = [log(factor) for name, factor in law.factors.items() if name != law.reference]
    return np.array([law.floor, log(law.scale), log(law.exponent), *others])


def _loss(parameters: Array, place: int | None, size: float) -> float:
    floor, log_scale, log_alpha, *logs = parameters
    shift = 0.0 if place is None else logs[place]
    return float(floor + exp(log_scale - exp(log_alpha) * (shift + log(size))))


def _gradient(parameters: Array, place: int | None, size: float) -> Array:
    """Return the derivatives of the loss by E, log A, log alpha and the log factors."""
    floor, _, log_alpha, *logs = parameters
    alpha, shift = exp(log_alpha), 0.0 if place is None else logs[place]
    reducible = _loss(parameters, place, size) - floor
    slope = np.zeros(len(parameters))
    slope[:3] = 1.0, reducible, -reducible * alpha * (shift + log(size))
    if place is not None:
        slope[3 + place] = -reducible * alpha
    return slope


def _covariance(
    parameters: Array, points: Sequence[Point], methods: Sequence[str], centre: float, squares: float, degrees: int
) -> Array | None:
    """Return s^2 (J'J)^(-1); None if no degrees are left or if J'J is singular."""
    if degrees <= 0:
        return None
    places: Iterator[int | None] = (methods.index(point.method) - 1 for point in points)
    rows = [
        _gradient(parameters, place if place is not None and place >= 0 else None, point.size / centre)
        for place, point in zip(places, points, strict=True)
    ]
    jacobian = np.array(rows)
    if np.linalg.matrix_rank(jacobian) < len(parameters):
        return None
    return np.linalg.inv(jacobian.T @ jacobian) * squares / degrees


def _around(value: float, error: float, degrees: int) -> Interval:
    width = exp(_quantile(degrees) * float(error))
    return Interval(value / width, value * width)


def _quantile(degrees: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, degrees))
