import pytest

from gnflow.study import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (7, "7"),
        (512, "512"),
        (999.6, "1k"),
        (131_072, "131k"),
        (999_700, "1M"),
        (1_441_792, "1.44M"),
        (2.5e9, "2.5G"),
        (1.2e13, "1.2e+13"),
    ],
)
def test_counts_have_three_digits(value: float | None, text: str) -> None:
    assert figures.format_count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (99.9, "99.9 s"),
        (99.96, "1 min 40 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (400_000, "4 days"),
    ],
)
def test_durations_read_aloud(seconds: float | None, text: str) -> None:
    assert figures.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (3, "just now"),
        (90, "1 min ago"),
        (7300, "2 h ago"),
        (100_000, "27 h ago"),
        (200_000, "2 days ago"),
    ],
)
def test_ages_have_one_unit(seconds: float | None, text: str) -> None:
    assert figures.format_age(seconds) == text


def test_factors_lose_their_fraction_when_it_says_nothing() -> None:
    assert [figures.format_factor(value) for value in (1.04, 5.36, 9.96, 65.2)] == ["1.0x", "5.4x", "10x", "65x"]


def test_a_sparkline_falls_with_its_values() -> None:
    assert figures.draw_sparkline([4.0, 3.0, 2.0]) == "█▅▁"
    assert figures.draw_sparkline([]) == ""
    assert figures.draw_sparkline([1.0, 1.0]) == "▁▁"


def test_a_long_sparkline_keeps_its_width_and_its_last_value() -> None:
    line = figures.draw_sparkline([*[1.0] * 1000, 0.0], width=60)
    assert len(line) <= 60
    assert line[-1] == "▁"
    assert set(line[:-1]) == {"█"}


@pytest.mark.parametrize(("value", "text"), [(3.4, "3.40"), (3.375, "3.375"), (3, "3.00")])
def test_a_target_has_two_decimals_at_least(value: float, text: str) -> None:
    assert figures.format_target(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.0834, "0.083"), (0.834, "0.83"), (1.02, "1.02"), (1.996, "2.0"), (5.14, "5.1"), (16.2, "16")],
)
def test_an_end_of_an_interval_shows_on_which_side_of_one_it_is(value: float, text: str) -> None:
    assert figures.format_ratio(value) == text


def test_one_thing_is_not_several() -> None:
    assert [figures.format_plural(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]


def test_a_skyline_stands_on_zero_and_is_of_letters_where_there_are_no_bars() -> None:
    assert figures.draw_skyline([0.0, 0.5, 1.0]) == "▁▅█"
    assert figures.draw_skyline([3.0, 3.0]) == "██"
    assert figures.draw_skyline([0.0, 0.5, 1.0], "ascii") == "_=#"
    assert figures.draw_skyline([0.0]) == "▁"
    assert figures.draw_skyline([]) == ""
