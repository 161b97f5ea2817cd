"""Sizes and ages, as people write and read them."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import UsageError
from imgload.core.units import age_text, parse_age, parse_size, size_text

SIZES = [(0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1 KiB"), (98 << 20, "98 MiB")]


@pytest.mark.parametrize(("size", "text"), [*SIZES, (3 << 29, "1.5 GiB"), (1 << 40, "1.0 TiB")])
def test_sizes_are_in_the_largest_fitting_unit(size: int, text: str) -> None:
    """Binary units, as their names say."""
    assert size_text(size) == text


@pytest.mark.parametrize("unit", [1 << 10, 1 << 20, 1 << 30, 1 << 40])
def test_a_size_is_not_rounded_up_to_1024_of_a_unit(unit: int) -> None:
    """One byte short of a MiB is 1 MiB, not 1024 KiB."""
    assert number_of(size_text(unit - 1)) < 1024


FINE = {"GiB", "TiB"}
FACTORS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def number_of(text: str) -> float:
    return float(text.partition(" ")[0])


@given(st.integers(0, 1 << 50))
def test_size_text_rounds_to_the_nearest_number(size: int) -> None:
    """What is read back differs by half of the last digit at most."""
    number, unit = size_text(size).split()
    step = 0.1 if unit in FINE else 1.0
    assert re.fullmatch(r"\d+\.\d" if unit in FINE else r"\d+", number)
    assert abs(float(number) * FACTORS[unit] - size) <= FACTORS[unit] * step / 2 * 1.001


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_size_text_is_monotonic(one: int, two: int) -> None:
    """Across the units' borders as well."""
    told = [size_text(size).split() for size in sorted((one, two))]
    small, large = (float(number) * FACTORS[unit] for number, unit in told)
    assert small <= large


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("1h30m", timedelta(minutes=90)),
        ("0s", timedelta()),
    ],
)
def test_ages_are_numbers_with_units(text: str, expected: timedelta) -> None:
    """As Go and systemd write them."""
    assert parse_age(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "24", "h", "-1h", "1.5h", "1 h", "1y", "1h ", "\N{ARABIC-INDIC DIGIT ONE}h", "9" * 99],
)
def test_parse_age_rejects_other_text_with_an_example(text: str) -> None:
    """In the exit status of wrong usage."""
    with pytest.raises(UsageError) as caught:
        parse_age(text)
    assert "24h" in caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (86_399, "23h"),
        (1e6, "11d"),
    ],
)
def test_an_age_is_shown_in_one_unit(seconds: float, expected: str) -> None:
    """A clock that went backwards shows as now."""
    assert age_text(seconds) == expected


@given(st.integers(0, 10**10))
def test_parse_age_accepts_age_text(seconds: int) -> None:
    """It is at most one unit younger."""
    shown = parse_age(age_text(seconds)).total_seconds()
    assert shown <= seconds < max(2 * shown, 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1KB", 1000), ("500MB", 500_000_000), ("10GiB", 10 << 30), ("2 TiB", 2 << 40)],
)
def test_a_size_has_a_decimal_or_a_binary_unit(text: str, size: int) -> None:
    assert parse_size(text) == size
