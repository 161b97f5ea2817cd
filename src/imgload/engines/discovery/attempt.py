"""An address where an engine may answer, and what came of asking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import EngineError, EngineNotPermitted, EngineUnreachable
from imgload.engines.endpoint import Endpoint, EngineKind

if TYPE_CHECKING:
    from imgload.engines.tls import Tls


@attrs.frozen
class Candidate:
    """An address where an engine may answer.

    Args:
        kind: which engine is expected there.
        url: ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host/path``; empty where a
            `problem` stands in its place.
        origin: where the address was found, for messages.
        explicit: whether it was named for this very run, so that its silence matters.
        chosen: whether it takes the place of the usual ones of its kind.
        last_resort: whether it is asked only when nobody else answers.
        tls: how to speak TLS to a ``tcp://`` address; None for not at all.
        identity: of an ``ssh://`` address, the file with the key, where ssh is not to choose.
        machine: whether it is a virtual machine that Podman keeps for this user.
        problem: why no address could be found.
        undo: the command that takes the choice back.
        take: the command that makes it the choice.

    """

    kind: EngineKind
    url: str
    origin: str
    explicit: bool = False
    chosen: bool = False
    last_resort: bool = False
    tls: Tls | None = None
    identity: str = ""
    machine: bool = False
    problem: EngineError | None = attrs.field(default=None, eq=False)
    undo: str = ""
    take: str = ""

    def __str__(self) -> str:
        return f"{self.kind} at {self.url} (from {self.origin})" if self.url else self.origin


@attrs.frozen
class Attempt:
    """What came of a candidate; neither answer nor error where it was not asked.

    Args:
        candidate: the address.
        endpoint: the engine that answered.
        error: why none did.
        same_as: the endpoint that the engine was found at already, by another way.
        passed_over: why it is not used whatever it answers; empty when it is.

    """

    candidate: Candidate
    endpoint: Endpoint | None = None
    error: EngineError | None = None
    same_as: Endpoint | None = None
    passed_over: str = ""

    @property
    def used(self) -> bool:
        """Whether this is the way to an engine that imgload takes."""
        return self.endpoint is not None and self.same_as is None and not self.passed_over

    @property
    def answered(self) -> Endpoint:
        """The engine, by the way that is taken to it.

        Raises:
            EngineError: when none answered.

        """
        found = self.same_as or self.endpoint
        if found is None:
            raise self.error or EngineUnreachable(f"{self.candidate} was not asked")
        return found

    @property
    def matters(self) -> bool:
        """Whether a user should hear of the error where something is not found.

        So with a choice, and with an engine that is there and may not be asked.
        """
        if self.error is None or self.passed_over:
            return False
        return self.candidate.chosen or isinstance(self.error, EngineNotPermitted)
