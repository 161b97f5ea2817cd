"""An engine's way to us for one image: a receiver, and the name that leads to it.

It serves several pushes, one after the other. Docker takes tens of milliseconds to give a name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

import attrs

from imgload.core.errors import ArchiveInvalid, EngineError, EngineFailed
from imgload.engines.base import NOT_CONNECTED
from imgload.engines.translate import timed_out
from imgload.oci.digest import Digest
from imgload.registry.handler import receiving
from imgload.registry.sink import Intake, Upload

Push = Callable[[], None]
Pushing = Callable[[str], AbstractContextManager[Push]]
"""Prepares an engine for pushes to a repository; what it yields pushes."""
LookUp = Callable[[str], None]
"""Has an engine look an image up in a repository, which stores nothing."""


class CutOff(EngineFailed):
    """The engine's loopback is not this process's: what it pushes there does not come here."""


@attrs.define
class Route:
    """The way of one image, until it is closed.

    Docker's containerd image store labels every blob of the image with the repository that it was
    pushed to, for good (``containerd.io/distribution.source``), once the push has succeeded. What
    ends it, the manifest under its tag, is therefore refused when `unnoted`: after it has come.
    """

    unnoted: bool
    _intake: Intake | None = None
    _ended: bool = False
    _reached: bool = False
    _push: Push = attrs.field(default=lambda: None)
    _open: ExitStack = attrs.field(factory=ExitStack)

    @classmethod
    def start(cls, pushing: Pushing, *, unnoted: bool, look_up: LookUp | None = None) -> Route:
        """Listen, and prepare the engine.

        Args:
            pushing: prepares pushes of the image.
            unnoted: whether the engine is kept from remembering the pushes.
            look_up: has the engine ask for something in the repository first; None where its
                requests are known to come here.

        Raises:
            CutOff: when what the engine was to ask for was not asked for here.
            EngineError: when the engine refuses.

        """
        with ExitStack() as stack:
            route = cls(unnoted)
            repository = stack.enter_context(receiving(route, route.end, route.reach))
            if look_up and not route.is_reached_by(look_up, repository):
                raise CutOff("the engine's requests to 127.0.0.1 do not reach this process")
            route._push = stack.enter_context(pushing(repository))
            route._open = stack.pop_all()
        return route

    def is_reached_by(self, look_up: LookUp, repository: str) -> bool:
        """Whether the engine, told to look an image up, asks for it here.

        The repository's name is a secret of this process's until then: only the engine, or who
        uses it, can ask for it.
        """
        with suppress(EngineError):
            look_up(repository)
        return self._reached

    def push(self, intake: Intake) -> None:
        """Have the engine push the image to an intake.

        Raises:
            CutOff: when nothing of the push came here.
            EngineError: when the push failed before all had come.

        """
        self._intake, self._ended, self._reached = intake, False, False
        try:
            self._push()
        except EngineError as error:
            if not self._reached and (NOT_CONNECTED in error.message or timed_out(error)):
                raise CutOff(error.message, hint=error.hint) from error
            if not self._ended:
                raise
        else:
            if not self._reached:
                raise CutOff("the engine pushed the image to somebody else on its 127.0.0.1")
        finally:
            self._intake = None

    def reach(self) -> None:
        """Note that the repository was asked for."""
        self._reached = True

    def end(self) -> bool:
        """Note that a push has come to its end; returns whether the engine is told so."""
        self._ended = self.unnoted
        return not self.unnoted

    def close(self) -> None:
        """Take the name away, and stop listening."""
        self._open.close()

    def size_of(self, digest: Digest) -> int | None:
        """Answer for the push in hand; see `Intake`."""
        return self._intake.size_of(digest) if self._intake else None

    def upload(self, digest: Digest | None, size: int | None) -> Upload:
        """Take a blob of the push in hand."""
        return self._of_push.upload(digest, size)

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Take a manifest of the push in hand."""
        self._of_push.manifest(digest, raw)

    @property
    def _of_push(self) -> Intake:
        if self._intake is None:
            raise ArchiveInvalid("nothing is being pushed")
        return self._intake
