"""Variables with an invalid address."""

from pathlib import Path

import pytest

from imgload.tools.doctor.engines import find_engines
from tests.unit.engines.discovery.test_docker_contexts import context
from tests.unit.engines.pings import PODMAN, engine


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_find_engines_reports_an_invalid_variable_and_ignores_it(
    tmp_path: Path, variable: str
) -> None:
    """The other engines are found."""
    context(tmp_path, "tcp://", {"Host": "tcp://"})
    with engine(tmp_path / "p", PODMAN) as url:
        environ = {"HOME": "/nonexistent", "DOCKER_CONFIG": str(tmp_path), "CONTAINER_HOST": url}
        found, [wrong] = find_engines({**environ, variable: "tcp://"})
    assert url in [endpoint.url for endpoint in found.endpoints]
    assert wrong.message.startswith(variable)
    assert "not an engine's address: 'tcp://'" in wrong.message
    assert "tcp://host:port" in wrong.hint
