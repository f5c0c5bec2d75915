"""A process that computes more slowly than the others is named."""

from gnflow.train.stragglers import STEPS, Stragglers


def heard(stragglers: Stragglers, *seconds: float, steps: int = STEPS) -> list[str]:
    return [slow.message for _ in range(steps) for slow in stragglers.hear(dict(enumerate(seconds)))]


def test_a_process_that_is_slow_for_ten_steps_is_named_once_with_its_seconds() -> None:
    stragglers = Stragglers([1.0, 1.0, 1.0])
    assert heard(stragglers, 1.0, 2.0, 1.1, steps=STEPS - 1) == []
    (said,) = heard(stragglers, 1.0, 2.0, 1.1, steps=2 * STEPS)
    assert said == ("process 1 of 3 has computed for 2 s a step over 10 steps, the others for 1.05 s; they wait for it")


def test_one_quick_step_ends_the_count() -> None:
    stragglers = Stragglers([1.0, 1.0])
    for _ in range(3):
        assert heard(stragglers, 1.0, 2.0, steps=STEPS - 1) == []
        assert heard(stragglers, 1.0, 1.2, steps=1) == []
    assert len(heard(stragglers, 1.0, 2.0)) == 1


def test_a_process_with_more_work_may_take_longer() -> None:
    assert heard(Stragglers([1.0, 2.0]), 1.0, 2.5) == []
    assert len(heard(Stragglers([1.0, 2.0]), 1.0, 3.5)) == 1


def test_milliseconds_are_not_counted() -> None:
    assert heard(Stragglers([1.0, 1.0]), 0.002, 0.008) == []
