"""Hypothesis profiles: repeatable without files; HYPOTHESIS_PROFILE=search runs more examples."""

import os
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

_numbers = count()

settings.register_profile("unit", deadline=None, database=None, derandomize=True, max_examples=60)
settings.register_profile("search", deadline=None, database=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give each test an empty cache, which no other test or run has."""
    folder = tmp_path_factory.getbasetemp() / f"cache-{next(_numbers)}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "imgload"
