"""The engine that Skaffold's Docker client talks to.

That is ``DOCKER_HOST``, or what ``docker context inspect`` says, or the default socket
(GoogleContainerTools/skaffold, pkg/skaffold/docker/client.go). It inspects there what was built.
"""

from __future__ import annotations

import attrs

from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint

DEFAULT_SOCKET = "unix:///var/run/docker.sock"


@attrs.frozen
class Client:
    """Where Skaffold looks for an engine.

    Args:
        url: the address.
        origin: who says so, for messages.
        endpoint: the engine that answers there, by the way that imgload takes to it; or None.

    """

    url: str
    origin: str
    endpoint: Endpoint | None = None

    @classmethod
    def of(cls, found: Discovery) -> Client:
        """Return what Skaffold would take of what was found."""
        tried = [a for a in found.attempts if a.candidate.kind == "docker" and not a.passed_over]
        for attempt in tried:
            place, endpoint = attempt.candidate, attempt.same_as or attempt.endpoint
            if place.chosen:
                return cls(place.url, place.origin, endpoint)
            if place.url == DEFAULT_SOCKET:
                return cls(place.url, "the default", endpoint)
        return cls(DEFAULT_SOCKET, "the default")
