"""The average of the weights is its formula, whatever the steps before it were."""

import pytest
import torch

from gnflow.compiler.average import begin_average, follow
from gnflow.spec.training import WeightEma, WeightTail

STEPS = 7
DRAWN = torch.randn(STEPS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def averages(rule: object, taken: range = range(1, STEPS + 1)) -> list[torch.Tensor | None]:
    """After every step; None where there is none yet."""
    average, found = begin_average(rule, {"w": torch.full((3,), 9.0, dtype=torch.float64)}), []
    for step in taken:
        average = follow(average, rule, {"w": DRAWN[step - 1]}, step, STEPS)
        found.append(average.params["w"] if average.steps else None)
    return found


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_ema_is_a_mean_that_fades_and_has_nothing_of_the_start(decay: float) -> None:
    for n, found in enumerate(averages(WeightEma(decay=decay)), start=1):
        weights = torch.tensor([decay ** (n - 1 - i) for i in range(n)], dtype=torch.float64)
        by_hand = (weights[:, None] * DRAWN[:n]).sum(0) / weights.sum()
        torch.testing.assert_close(found, by_hand, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("part", "last"), [(0.01, 1), (0.3, 2), (0.5, 4), (0.99, 7)])
def test_tail_is_the_mean_of_the_last_part(part: float, last: int) -> None:
    found = averages(WeightTail(part=part))
    assert [each is None for each in found] == [step <= STEPS - last for step in range(1, STEPS + 1)]
    torch.testing.assert_close(found[-1], DRAWN[-last:].mean(0), rtol=1e-13, atol=1e-14)
    assert torch.equal(found[STEPS - last], DRAWN[STEPS - last])


def test_a_step_that_was_not_taken_is_not_averaged() -> None:
    (*_, found) = averages(WeightTail(part=0.5), [1, 2, 3, 4, 6, 7])
    torch.testing.assert_close(found, DRAWN[[3, 5, 6]].mean(0), rtol=1e-13, atol=1e-14)


def test_without_a_rule_there_is_none_and_what_was_averaged_stays() -> None:
    assert begin_average(None, {"w": DRAWN[0]}) is None
    assert follow(None, WeightEma(), {"w": DRAWN[0]}, 1, STEPS) is None
    first = averages(WeightEma())[0]
    assert torch.equal(first, DRAWN[0])
    assert not WeightEma().looks_ahead
    assert WeightTail().looks_ahead
