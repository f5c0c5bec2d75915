"""The law that made the losses is found again, and a fit says how sure it is."""

import numpy as np
import pytest

from gnflow.errors import SpecError
from gnflow.study.scaling_law import Point, fit

FLOOR, SCALE, EXPONENT = 1.7, 30.0, 0.35
FACTORS = {"muon": 1.0, "adamw": 0.6, "full_gn": 2.5}


def points(noise: float = 0.0, seed: int = 0, sizes: tuple[float, ...] = (5e4, 2e5, 1e6, 4e6)) -> list[Point]:
    draws = np.random.default_rng(seed)
    return [
        Point(name, size, FLOOR + SCALE * (factor * size) ** -EXPONENT + noise * draws.standard_normal())
        for name, factor in FACTORS.items()
        for size in sizes
        for _ in range(3)
    ]


def test_the_law_that_made_the_losses_is_found() -> None:
    law = fit(points(), "muon")
    assert law.floor == pytest.approx(FLOOR, abs=1e-4)
    assert law.exponent == pytest.approx(EXPONENT, rel=1e-4)
    assert law.factors == pytest.approx(FACTORS, rel=1e-4)
    assert law.predict_loss("full_gn", 4e7) == pytest.approx(FLOOR + SCALE * (2.5 * 4e7) ** -EXPONENT, abs=1e-4)
    assert law.find_size(law.predict_loss("adamw", 1e6)) == pytest.approx(0.6e6, rel=1e-4)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    fits = [fit(points(0.01, seed), "muon") for seed in range(100)]
    covered = [law.intervals["full_gn"][0] <= 2.5 <= law.intervals["full_gn"][1] for law in fits]  # type: ignore[index]
    assert 88 <= sum(covered) <= 100
    truth = FLOOR + SCALE * 1e6**-EXPONENT
    assert (
        88
        <= sum(law.predict_interval("muon", 1e6)[0] <= truth <= law.predict_interval("muon", 1e6)[1] for law in fits)
        <= 100
    )  # type: ignore[index]


def test_more_than_a_decade_away_is_refused_and_why() -> None:
    law = fit(points(), "muon")
    with pytest.raises(SpecError, match="more than one decade away, where a small error of the exponent"):
        law.predict_loss("muon", 4.1e7)
    assert law.find_size(FLOOR + 1e-3) is None


def test_too_few_sizes_and_losses_that_rise_are_refused() -> None:
    with pytest.raises(SpecError, match="`muon` has losses at 2 sizes; expected runs at three"):
        fit(points(sizes=(1e5, 1e6)), "muon")
    with pytest.raises(SpecError, match="no loss at any scale"):
        fit(points(), "soap")
    with pytest.raises(SpecError, match="do not fall with size"):
        fit([Point("muon", size, 1.0 + 0.1 * place) for place, size in enumerate((1e5, 1e6, 1e7))], "muon")


def test_losses_that_fall_with_the_logarithm_of_size_have_no_exponent() -> None:
    with pytest.raises(SpecError, match="the best one is at an end of"):
        fit([Point("muon", size, 10 - 0.1 * np.log(size)) for size in (1e5, 1e6, 1e7)], "muon")
