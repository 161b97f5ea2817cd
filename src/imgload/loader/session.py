"""Opens the engines, sources and nodes that a user selects."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

import attrs

from imgload.clusters.select import Selection, select
from imgload.core.arguments import optional_string
from imgload.core.errors import (
    ClusterNotFound,
    EngineUnreachable,
    ImageNotFound,
    ImgloadError,
    NodeNotFound,
    UsageError,
)
from imgload.engines.base import Engine
from imgload.engines.discovery.candidates import named_address
from imgload.engines.discovery.discover import Discovery, open_engines, with_discovery_errors
from imgload.engines.discovery.probe import no_engine_error
from imgload.engines.endpoint import Endpoint
from imgload.sources.base import Source
from imgload.sources.engine import EngineSource

ENGINES = ("docker", "podman")


@attrs.frozen
class Session:
    """Open engines, the sources in which images are searched, and archives to load as a whole."""

    sources: tuple[Source, ...]
    engines: tuple[Engine, ...]
    discovery: Discovery
    archives: tuple[Source, ...] = ()

    @classmethod
    @contextmanager
    def open(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        follow_links: bool = False,
        has_images: bool = True,
        archives: Sequence[str] = (),
    ) -> Iterator[Session]:
        """Find and open the engines; close them at the end.

        Args:
            source: ``docker``, ``podman``, an engine's URL, or a path; None for every engine.
            follow_links: whether symbolic links may lead out of a source that is a folder.
            has_images: whether images are searched; without, and with a path, no engine has to
                answer, since nodes may be machines.
            archives: paths of archives or folders of images, or ``-`` for standard input.

        """
        source = optional_string(source, "source")
        with ExitStack() as stack:
            opened_archives = [
                _open_archive(path, stack, follow_links=follow_links)
                for path in dict.fromkeys(archives)
            ]
            is_engine = source in {None, *ENGINES} or "://" in (source or "")
            archive = (
                None if is_engine else _open_archive(source or "", stack, follow_links=follow_links)
            )
            is_url = source and "://" in source
            explicit = [named_address(source, "--from", os.environ)] if source and is_url else []
            discovery, engines = stack.enter_context(
                open_engines(explicit, required=archive is None and has_images)
            )
            sources: Sequence[Source] = (
                [archive] if archive else _select_engines(source, engines, discovery)
            )
            session = cls(
                tuple(sources), tuple(engines.values()), discovery, tuple(opened_archives)
            )
            for opened in session.sources:
                stack.callback(opened.release)
            with session._naming_other_engine(source):
                yield session

    def select(
        self,
        cluster: str | Sequence[str] | None,
        names: Sequence[str],
        *,
        ignores_context: bool = True,
        address: str | None = None,
    ) -> Selection:
        """Return the selected nodes; see `imgload.clusters.select.select`."""
        with self._naming_engines():
            return select(
                self.engines, cluster, names, ignores_context=ignores_context, address=address
            )

    @contextmanager
    def _naming_other_engine(self, source: str | None) -> Iterator[None]:
        """Add the engine that has a missing image, but is not the selected source."""
        try:
            yield
        except ImageNotFound as error:
            sources = [s.engine for s in self.sources if isinstance(s, EngineSource)]
            for engine in self.engines if sources else ():
                other = EngineSource(engine)
                with suppress(ImgloadError):
                    if engine not in sources and other.find(error.image, None):
                        break
            else:
                raise
            option = engine.endpoint.kind if source in ENGINES else other.address
            raise ImageNotFound(
                f"{error.message}; {other.describe} has it",
                hint=f"--from {shlex.quote(option)}",
                image=error.image,
            ) from error

    @contextmanager
    def _naming_engines(self) -> Iterator[None]:
        """Add the engines that do not answer to a "not found" error."""
        try:
            with with_discovery_errors(self.discovery.unreachable):
                yield
        except (ClusterNotFound, NodeNotFound) as error:
            if self.engines:
                raise
            raise no_engine_error(self.discovery.attempts, self.discovery.absent) from error


def _open_archive(path: str, stack: ExitStack, *, follow_links: bool) -> Source:
    from imgload.sources.archive import ArchiveSource  # noqa: PLC0415 - start-up

    if path != "-" and not os.path.exists(path):  # noqa: PTH110 - Path's raises for long names
        if re.search(r"[/.]", path):
            hint = "check the path, or write an archive: docker save app:dev -o app.tar"
            raise UsageError(f"no such file: {path!r:.300}", hint=hint)
        from difflib import get_close_matches  # noqa: PLC0415 - start-up

        close = get_close_matches(path, ENGINES, 1)
        raise UsageError(
            f"no such source: {path!r:.300} is neither docker, podman, an engine's URL, nor a file",
            hint=f"--from {shlex.quote(close[0])}" if close else "--from docker, or --from podman",
        )
    archive = ArchiveSource(path, follow_links=follow_links)
    stack.callback(archive.close)
    return archive


def _select_engines(
    source: str | None, engines: Mapping[Endpoint, Engine], discovery: Discovery
) -> list[EngineSource]:
    if source is None:
        return list(map(EngineSource, engines.values()))
    if source not in ENGINES:
        return [EngineSource(engines[discovery.required_at(source)])]
    if selected := [e for endpoint, e in engines.items() if endpoint.kind == source]:
        return list(map(EngineSource, selected))
    for attempt in discovery.attempts:
        if attempt.error and attempt.candidate.kind == source and not attempt.skip_reason:
            raise attempt.error
    raise EngineUnreachable(
        f"no {source} engine answers",
        hint=f"start it, or select it: --from unix:///path/to/{shlex.quote(source)}.sock",
    )
