"""docs/peers.md: each report has its tests, or the reason why not; no test is left out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "peers.md").read_text()
ROWS = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
OF_KIND = {int(row[0]): row for row in ROWS if row[0].strip().isdecimal()}
NAMED = set(re.findall(r"`(test_\w+)`", PAGE))
_DEFINED = re.compile(r"^def (test_\w+)", re.MULTILINE)


def defined(pattern: str) -> set[str]:
    """Return the tests in the files that a pattern matches."""
    files = (ROOT / "tests").glob(pattern)
    return {name for file in files for name in _DEFINED.findall(file.read_text())}


@pytest.mark.parametrize("number", range(1, 16))
def test_each_number_of_kinds_has_a_test_of_its_own(number: int) -> None:
    """`test_kind_NN_…` stands in the row with that number."""
    assert f"`test_kind_{number:02}_" in OF_KIND[number][-1]


def test_the_tests_that_are_named_exist() -> None:
    """A renamed test would leave a claim without proof."""
    assert defined("**/test_*.py") >= NAMED


def test_all_tests_of_reports_are_named() -> None:
    """And in the row of their number."""
    there = defined("engine/test_peers*.py")
    assert there
    assert there <= NAMED
    for name in there:
        if number := re.match(r"test_kind_(\d\d)_", name):
            assert f"`{name}`" in OF_KIND[int(number.group(1))][-1]


@pytest.mark.parametrize("row", [row for row in ROWS if "#" in row[0]], ids=lambda row: row[0][:40])
def test_what_others_report_has_a_test_or_a_reason(row: list[str]) -> None:
    """No report is left alone."""
    assert "`test_" in row[-1]
