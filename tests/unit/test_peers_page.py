"""docs/peers.md names the tests of each issue or a reason, and every test of an issue."""

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
    """Return the names of the tests in the files that match a pattern."""
    files = (ROOT / "tests").glob(pattern)
    return {name for file in files for name in _DEFINED.findall(file.read_text())}


@pytest.mark.parametrize("number", range(1, 16))
def test_each_issue_of_kind_names_its_tests(number: int) -> None:
    assert f"`test_kind_{number:02}_" in OF_KIND[number][-1]


def test_named_tests_exist() -> None:
    assert defined("**/test_*.py") >= NAMED


def test_every_test_of_an_issue_is_in_the_row_of_its_number() -> None:
    tests = defined("engine/test_peers*.py")
    assert tests
    assert tests <= NAMED
    for name in tests:
        if number := re.match(r"test_kind_(\d\d)_", name):
            assert f"`{name}`" in OF_KIND[int(number.group(1))][-1]


@pytest.mark.parametrize("row", [row for row in ROWS if "#" in row[0]], ids=lambda row: row[0][:40])
def test_each_issue_of_others_names_a_test(row: list[str]) -> None:
    assert "`test_" in row[-1]
