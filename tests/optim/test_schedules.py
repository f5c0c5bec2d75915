from math import cos, pi, sqrt

import pytest
import torch

from gnflow.optim import schedules


def values(schedule, counts):
    return [schedule(torch.tensor(count)).item() for count in counts]


def test_constant_warms_up_linearly():
    assert values(schedules.constant(4), range(6)) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert values(schedules.constant(), [0, 9]) == [1, 1]


def test_cosine_ends_at_its_final_factor():
    assert values(schedules.cosine(8, 0, 0.1), [0, 4, 8, 20]) == pytest.approx([1, 0.55, 0.1, 0.1])
    assert values(schedules.cosine(10, 2), [0, 1, 2, 6]) == pytest.approx([0.5, 1, 1, 0.5])


def test_constant_with_inner_cosine_starts_again_at_every_outer_step():
    inner = [0.5 * (1 + cos(pi * i / 4)) for i in range(4)]
    assert values(schedules.constant_with_inner_cosine(4), range(8)) == pytest.approx(inner + inner)


def test_inner_cosine_has_a_falling_peak():
    schedule = schedules.inner_cosine(4, 3)
    peaks = values(schedule, [0, 4, 8])
    assert peaks == pytest.approx([0.5 * (1 + cos(pi * t / 3)) for t in range(3)])
    assert values(schedule, [6])[0] == pytest.approx(0.5 * peaks[1])


SHAPES = {
    "linear": (lambda t: t, {}),
    "cosine": (lambda t: (1 - cos(pi * t)) / 2, {}),
    "sqrt": (lambda t: 1 - sqrt(1 - t), {}),
    "power": (lambda t: t**1.5, {"power": 1.5}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("updates", "warmup", "decay"), [(10, 0, 4), (10, 3, 7), (7, 2, 0), (1, 0, 1), (50, 7, 13), (9, 4, 5), (3, 0, 3)]
)
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_wsd_is_its_formula_at_every_update(shape, updates, warmup, decay, final):
    fall, more = SHAPES[shape]

    def by_hand(u):
        if u < warmup:
            return (u + 1) / warmup
        return 1.0 if u < updates - decay else final + (1 - final) * fall((updates - u) / decay)

    counts = range(updates)
    found = values(schedules.wsd(updates, warmup, decay, shape, final=final, **more), counts)
    assert found == pytest.approx([by_hand(u) for u in counts], rel=1e-14, abs=1e-15)
    # Until the decay it is a constant rate, bit for bit; once the run is over it stays where it ended.
    assert all(found[u] == 1 for u in range(warmup, updates - decay))
    after = values(schedules.wsd(updates, warmup, decay, shape, final=final, **more), [updates, 3 * updates])
    assert after == pytest.approx([final, final], abs=1e-15)
    assert final or after == [0, 0]


def test_a_warm_up_may_begin_at_a_part_of_the_rate():
    rising = [0.1 + 0.9 * u / 4 for u in range(4)]
    for made in (schedules.constant(4, 0.1), schedules.wsd(10, 4, warmup_from=0.1)):
        assert values(made, range(6)) == pytest.approx([*rising, 1, 1], rel=1e-14)
    cosine = values(schedules.cosine(10, 4, warmup_from=0.1), range(5))
    assert cosine == pytest.approx([*rising, 1], rel=1e-14)
    assert values(schedules.linear(10, 4, warmup_from=0.1), [3, 4, 7]) == pytest.approx([0.775, 1, 0.5], rel=1e-14)


@pytest.mark.parametrize(("updates", "warmup"), [(10, 0), (10, 3), (7, 7), (1, 0)])
def test_linear_falls_over_all_that_follows_the_warm_up(updates, warmup):
    rising = [(u + 1) / warmup for u in range(warmup)]
    falling = [0.1 + 0.9 * (updates - u) / (updates - warmup) for u in range(warmup, updates)]
    assert values(schedules.linear(updates, warmup, 0.1), range(updates)) == pytest.approx(rising + falling, rel=1e-14)
    assert values(schedules.linear(updates, warmup), [updates]) == [0]
