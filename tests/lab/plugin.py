"""The lab as a pytest fixture; name this module in a conftest's `pytest_plugins`."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The running lab; what a test is the first to use is started, and stopped at the end."""
    with Lab.open() as opened:
        yield opened
