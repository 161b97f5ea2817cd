"""A candidate address of an engine, and the attempt to reach it."""

from __future__ import annotations

import attrs

from imgload.core.errors import EngineError, EngineNotPermitted, EngineUnreachable
from imgload.engines.endpoint import Endpoint, EngineKind, Tls


@attrs.frozen
class Candidate:
    """An address where an engine may answer.

    Args:
        kind: the expected kind.
        url: as in Endpoint; empty if there is a `problem`.
        origin: as in Endpoint, like `tls`.
        explicit: whether the user gave it for this run; an invalid address is an error then.
        chosen: whether it replaces the usual addresses of its kind.
        last_resort: whether to try it only when no other candidate answers.
        identity: the key file for an ``ssh://`` address; empty if ssh chooses.
        machine: whether it is one of Podman's virtual machines.
        problem: the reason for having no address.
        undo: the command that removes the choice.
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
    """The result of trying a candidate; one that was not tried has neither endpoint nor error."""

    candidate: Candidate
    endpoint: Endpoint | None = None
    error: EngineError | None = None
    same_as: Endpoint | None = None
    """The endpoint of the same engine by an earlier candidate."""
    skip_reason: str = ""
    """The reason for not using the candidate; empty if it may be used."""

    @property
    def used(self) -> bool:
        """Whether imgload uses the engine by this address."""
        return self.endpoint is not None and self.same_as is None and not self.skip_reason

    @property
    def resolved_endpoint(self) -> Endpoint:
        """The endpoint that imgload uses for this engine; EngineError if none answered."""
        endpoint = self.same_as or self.endpoint
        if endpoint is None:
            raise self.error or EngineUnreachable(f"{self.candidate} was not tried")
        return endpoint

    @property
    def is_worth_mentioning(self) -> bool:
        """Whether to mention the error when an image or cluster is not found.

        True for a chosen candidate, and for an engine that refuses the user.
        """
        if self.error is None or self.skip_reason:
            return False
        return self.candidate.chosen or isinstance(self.error, EngineNotPermitted)
