"""An engine's way to us for one image: a receiver, and the name that leads to it.

It serves several pushes, one after the other. Docker takes tens of milliseconds to give a name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import attrs

from imgload.errors import ArchiveInvalid, EngineError
from imgload.oci.digest import Digest
from imgload.transports.intake import Intake, Upload
from imgload.transports.receiver import receiving

Push = Callable[[], None]
Pushing = Callable[[str], AbstractContextManager[Push]]
"""Prepares an engine for pushes to a repository; what it yields pushes."""


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
    _push: Push = attrs.field(default=lambda: None)
    _open: ExitStack = attrs.field(factory=ExitStack)

    @classmethod
    def start(cls, pushing: Pushing, *, unnoted: bool) -> Route:
        """Listen, and prepare the engine.

        Raises:
            EngineError: when the engine refuses.

        """
        with ExitStack() as stack:
            route = cls(unnoted)
            repository = stack.enter_context(receiving(route, route.end))
            route._push = stack.enter_context(pushing(repository))
            route._open = stack.pop_all()
        return route

    def push(self, intake: Intake) -> None:
        """Have the engine push the image to an intake.

        Raises:
            EngineError: when the push failed before all had come.

        """
        self._intake, self._ended = intake, False
        try:
            self._push()
        except EngineError:
            if not self._ended:
                raise
        finally:
            self._intake = None

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
