"""The engine of Skaffold's Docker client, in which Skaffold looks for built images.

The client uses ``DOCKER_HOST``, else the address from ``docker context inspect``, else the default
socket (GoogleContainerTools/skaffold, pkg/skaffold/docker/client.go).
"""

from __future__ import annotations

import attrs

from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint

DEFAULT_SOCKET = "unix:///var/run/docker.sock"


@attrs.frozen
class Client:
    """The address that Skaffold's Docker client uses, and the engine that answers there, if any.

    The origin is the variable or context that sets the address, for messages.
    """

    url: str
    origin: str
    endpoint: Endpoint | None = None

    @classmethod
    def of(cls, discovery: Discovery) -> Client:
        """Return the address that Skaffold's Docker client chooses."""
        for attempt in discovery.attempts:
            candidate, endpoint = attempt.candidate, attempt.same_as or attempt.endpoint
            if candidate.kind == "docker" and not attempt.skip_reason:
                if candidate.chosen:
                    return cls(candidate.url, candidate.origin, endpoint)
                if candidate.url == DEFAULT_SOCKET:
                    return cls(candidate.url, "the default", endpoint)
        return cls(DEFAULT_SOCKET, "the default")
