from math import cos, pi

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
