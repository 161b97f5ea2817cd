"""Ages, as people write and read them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.ages import age_text, parse_age
from imgload.core.errors import UsageError


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
