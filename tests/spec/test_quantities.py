import pytest

from gnflow.spec.quantities import parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "whole", "number"),
    [
        ("1M", "tokens", False, "1000000"),
        ("2.5k", None, True, "2500"),
        ("10B tokens", "tokens", False, "10000000000"),
        ("1,000,000", None, True, "1000000"),
        ("1 000", None, True, "1000"),
        ("5%", None, False, "0.05"),
        ("2**20", None, True, "1048576"),
        ("10^6", None, True, "1000000"),
        ("1/8", None, False, "0.125"),
        ("10min", "minutes", False, "10"),
        ("10 m", "minutes", False, "10"),
        ("1h", "minutes", False, "60"),
        ("90s", "minutes", False, "1.5"),
        ("2GiB", "MiB", True, "2048"),
        ("2GB", "MiB", True, "1907"),
        ("512 mb", "MiB", True, "488"),
        ("100 steps", "optimizer steps", True, "100"),
    ],
)
def test_what_people_write_is_the_number_that_they_mean(text: str, unit: str | None, whole: bool, number: str) -> None:
    assert parse_quantity(text, unit, whole) == number


@pytest.mark.parametrize(
    ("text", "unit", "whole"),
    [("twelve", None, True), ("1.5", None, True), ("1/3", None, True), ("10min", "tokens", True), ("3-4", None, False),
     ("1/0", None, False), ("9**99", None, True),
     ("99999**99", None, True), ("9" * 5000 + "**2", None, True),
     ("", None, True), ("1,5", None, False), ("k", None, True)],
)  # fmt: skip
def test_what_is_no_number_or_ambiguous_is_left_alone(text: str, unit: str | None, whole: bool) -> None:
    assert parse_quantity(text, unit, whole) is None
