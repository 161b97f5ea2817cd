"""What it takes to stand in for another loader's command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from imgload.engines.endpoint import EngineKind
    from imgload.loader.events import Event
    from imgload.loader.report import Report


@attrs.frozen
class Request:
    """Images to load, asked for in another loader's words.

    Args:
        clusters: by name.
        images: as they were written.
        archives: paths.
        piped: whether standard input is an archive as well.
        nodes: only these; empty for all.
        engine: the only one whose clusters are meant, or None.
        verbosity: from 1 on, the proof is shown, too; below 0, only warnings and errors.
        notes: what to say before.

    """

    clusters: tuple[str, ...]
    images: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    piped: bool = False
    nodes: tuple[str, ...] = ()
    engine: EngineKind | None = None
    verbosity: int = 0
    notes: tuple[str, ...] = ()


@attrs.frozen
class Help:
    """A text that was asked for, or that goes with an error."""

    text: str
    error: str = ""


@attrs.frozen
class HandOver:
    """Something for the real program; `why` it is, where that is not plain."""

    why: str = ""


class Story(ABC):
    """Tells of one request in the other loader's words, line by line."""

    @abstractmethod
    def tell(self, event: Event) -> Iterator[str]:
        """Yield what to say of an event; called from several threads."""

    @abstractmethod
    def conclude(self, report: Report) -> Iterator[str]:
        """Yield what to say of a load that went well."""


class Tool(ABC):
    """Another loader, of whose commands ours does some.

    Attributes:
        name: of its program.
        takes: the command that ours takes over.
        homepage: where to get it.
        label: the one with the cluster's name, on each of its nodes.
        name_flag: the flag that names a cluster.
        makes: the command that makes a cluster.

    """

    name: str
    takes: str
    homepage: str
    label: str
    name_flag: str
    makes: str

    @abstractmethod
    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        """Return what a command line means.

        Raises:
            UsageError: in the tool's words.

        """

    @abstractmethod
    def silenced(self, arguments: Sequence[str]) -> bool:
        """Whether nothing is to be said on stderr, whatever happens."""

    @abstractmethod
    def story(self, request: Request) -> Story:
        """Return who tells of a request."""
