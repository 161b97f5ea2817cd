"""The interface of a drop-in for another tool's load command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

if TYPE_CHECKING:
    from imgload.engines.endpoint import EngineKind
    from imgload.loader.events import Event
    from imgload.loader.report import Report


@attrs.frozen
class Request:
    """A load command of another tool.

    Args:
        clusters: names of the clusters.
        images: image names or IDs, as typed.
        archives: paths.
        piped: whether standard input is an archive, too.
        nodes: names of the nodes; empty for all.
        engine: the only engine whose clusters count; None for all.
        verbosity: from 1 on, show the verification; below 0, only warnings and errors.
        notes: lines to print first.

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
    """A help text, requested or printed with an error."""

    text: str
    error: str = ""


@attrs.frozen
class HandOver:
    """A command for the real program; `why` is the reason if it is not obvious."""

    why: str = ""


class Story(ABC):
    """Reports one load in the other tool's words, as lines."""

    @abstractmethod
    def tell(self, event: Event) -> Iterator[str]:
        """Yield the lines for an event; several threads call it."""

    @abstractmethod
    def conclude(self, report: Report) -> Iterator[str]:
        """Yield the lines for a successful load."""


class Tool(ABC):
    """Another tool, one of whose commands a drop-in replaces.

    Attributes:
        name: the name of its program.
        takes: the command that the drop-in replaces.
        homepage: a URL.
        label: the label with the cluster's name on each of its nodes.
        name_flag: the flag for a cluster's name.
        makes: the command that creates a cluster.

    """

    name: ClassVar[str]
    takes: ClassVar[str]
    homepage: ClassVar[str]
    label: ClassVar[str]
    name_flag: ClassVar[str]
    makes: ClassVar[str]

    @abstractmethod
    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        """Parse a command line; UsageError has the tool's own message."""

    def silenced(self, arguments: Sequence[str]) -> bool:  # noqa: ARG002 - see Kind
        """Whether the drop-in prints nothing to stderr."""
        return False

    @abstractmethod
    def story(self, request: Request) -> Story:
        """Return the reporter for a request."""
