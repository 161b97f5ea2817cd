"""A setting that leads to no address, and the engines beside it."""

from pathlib import Path

import pytest

from imgload.tools.doctor.engines import find_engines
from tests.unit.engines.discovery.test_docker_contexts import context
from tests.unit.engines.pings import PODMAN, engine


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_a_variable_that_leads_to_no_address_hides_no_other_engine(
    tmp_path: Path, variable: str
) -> None:
    """It is a finding, and the look goes on without it."""
    context(tmp_path, "tcp://", {"Host": "tcp://"})
    with engine(tmp_path / "p", PODMAN) as url:
        environ = {"HOME": "/nonexistent", "DOCKER_CONFIG": str(tmp_path), "CONTAINER_HOST": url}
        found, [wrong] = find_engines({**environ, variable: "tcp://"})
    assert url in [endpoint.url for endpoint in found.endpoints]
    assert wrong.message.startswith(variable)
    assert "not an engine's address: 'tcp://'" in wrong.message
    assert "tcp://host:port" in wrong.hint
