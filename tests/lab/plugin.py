"""The lab as a pytest fixture; list this module in the `pytest_plugins` of a conftest."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The running lab; it starts pieces on their first use, and stops them at the end."""
    with Lab.open() as opened:
        yield opened
