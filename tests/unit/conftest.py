"""Hypothesis in the unit tests: repeatable, without files; HYPOTHESIS_PROFILE=search digs."""

import os

import pytest
from hypothesis import settings

settings.register_profile("unit", deadline=None, database=None, derandomize=True, max_examples=60)
settings.register_profile("search", deadline=None, database=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


@pytest.fixture(autouse=True)
def _no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the machine's own engines and kubeconfig: no unit test may depend on them."""
    nowhere = tmp_path_factory.getbasetemp() / "nowhere"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{nowhere}/docker.sock")
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{nowhere}/podman.sock")
    monkeypatch.setenv("KUBECONFIG", f"{nowhere}/kubeconfig")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{nowhere}/cache")
