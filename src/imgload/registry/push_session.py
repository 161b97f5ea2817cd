"""Pushes of one image by an engine, all to the same repository, under the same tag.

The repository is reused since Docker takes tens of milliseconds to tag an image.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

import attrs

from imgload.core.errors import ArchiveInvalid, EngineError, EngineFailed
from imgload.engines.base import NOT_CONNECTED
from imgload.engines.http import timed_out
from imgload.oci.digest import Digest
from imgload.registry.handler import receiving
from imgload.registry.sink import PushSink, UploadWriter

Push = Callable[[], None]
Pushing = Callable[[str], AbstractContextManager[Push]]
"""Prepares an engine for pushes to a repository, and yields the function that pushes."""
LookUp = Callable[[str], None]
"""Has an engine look up an image in a repository, which stores nothing."""


class EngineCannotReachUs(EngineFailed):
    """The engine's loopback is not this process's: its pushes do not arrive here."""


@attrs.define
class PushSession:
    """A repository for the pushes of one image, and the tag that the engine pushes.

    Docker's containerd image store labels every blob of the image with the repository that it was
    pushed to, for good (``containerd.io/distribution.source``), once the push has succeeded.
    Therefore `refuse_last_manifest` stores the tagged manifest, which ends a push, and refuses it.
    """

    refuse_last_manifest: bool
    _intake: PushSink | None = None
    _ended: bool = False
    _reached: bool = False
    _push: Push = attrs.field(default=lambda: None)
    _open: ExitStack = attrs.field(factory=ExitStack)

    @classmethod
    def start(
        cls, pushing: Pushing, *, refuse_last_manifest: bool, look_up: LookUp | None = None
    ) -> PushSession:
        """Listen, and prepare the engine.

        Args:
            pushing: prepares pushes of the image.
            refuse_last_manifest: whether to keep the engine from remembering the pushes.
            look_up: sends a request of the engine to the repository first; None where its
                requests are known to arrive.

        Raises:
            CutOff: when the request does not arrive.
            EngineError: when the engine refuses.

        """
        with ExitStack() as stack:
            route = cls(refuse_last_manifest)
            repository = stack.enter_context(receiving(route, route.end, route.reach))
            if look_up:
                # only the engine and its users can know the repository, whose name is random
                with suppress(EngineError):
                    look_up(repository)
                if not route._reached:
                    raise EngineCannotReachUs(
                        "the engine's requests to 127.0.0.1 do not reach this process"
                    )
            route._push = stack.enter_context(pushing(repository))
            route._open = stack.pop_all()
        return route

    def push(self, intake: PushSink) -> None:
        """Have the engine push the image to an intake.

        Raises:
            CutOff: when no request of the push arrives.
            EngineError: when the push fails before its end.

        """
        self._intake, self._ended, self._reached = intake, False, False
        try:
            self._push()
        except EngineError as error:
            if not self._reached and (NOT_CONNECTED in error.message or timed_out(error)):
                raise EngineCannotReachUs(error.message, hint=error.hint) from error
            if not self._ended:
                raise
        else:
            if not self._reached:
                raise EngineCannotReachUs(
                    "the engine pushed the image to another process on its 127.0.0.1"
                )
        finally:
            self._intake = None

    def reach(self) -> None:
        self._reached = True

    def end(self) -> bool:
        """Record the end of a push, and return whether the engine may remember it."""
        self._ended = self.refuse_last_manifest
        return not self.refuse_last_manifest

    def close(self) -> None:
        """Remove the tag, and stop listening."""
        self._open.close()

    def stat_blob(self, digest: Digest) -> int | None:
        return self._intake.stat_blob(digest) if self._intake else None

    def upload(self, digest: Digest | None, size: int | None) -> UploadWriter:
        return self._current_intake.upload(digest, size)

    def manifest(self, digest: Digest, raw: bytes) -> None:
        self._current_intake.manifest(digest, raw)

    @property
    def _current_intake(self) -> PushSink:
        if self._intake is None:
            raise ArchiveInvalid("no push is in progress")
        return self._intake
