"""The lab fixture, and markers for tests with and without engines."""

import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest

from tests.isolation import hide_engines, hide_settings

pytest_plugins = ["tests.lab.plugin"]

_HERE = Path(__file__).parent
_MARKS = {
    "nightly": "every test; run with: scripts/test nightly, or pytest -m nightly",
    "unit": "needs no engine and no node; all of tests/unit, and nothing else",
    "engine": "needs the lab's engines and nodes; all of tests/engine",
}


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background processes with SIGINT ignored, and child processes inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="imgload-home-"))
    config.add_cleanup(partial(shutil.rmtree, home, ignore_errors=True))
    hide_settings(home)
    hide_engines(home)
    for name, meaning in _MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests; the short files of unit tests come last, so that two workers end together."""
    items.sort(key=lambda item: _folder(item) == "unit")
    for item in items:
        item.add_marker("nightly")
        folder = _folder(item)
        if folder in _MARKS:
            item.add_marker(folder)
        if folder == "unit" and "lab" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} is a unit test and uses the lab")


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(_HERE).parts[0]
