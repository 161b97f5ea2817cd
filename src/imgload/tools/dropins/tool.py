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
    """A load command of another tool, with names as typed.

    Standard input is an archive, too, if `piped`. No nodes stand for all nodes, and no engine for
    all engines. From verbosity 1 on the verification is shown, and below 0 only warnings and
    errors. The notes are printed first.
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


class Reporter(ABC):
    """Reports one load in the other tool's words, as lines."""

    @abstractmethod
    def tell(self, event: Event) -> Iterator[str]:
        """Yield the lines for an event; several threads call it."""

    @abstractmethod
    def conclude(self, report: Report) -> Iterator[str]:
        """Yield the lines for a successful load."""


class Tool(ABC):
    """Another tool: the drop-in replaces its command `takes`, and nodes have its label.

    `name_flag` is its flag for a cluster's name, and `makes` its command to create a cluster.
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

    def is_quiet(self, arguments: Sequence[str]) -> bool:  # noqa: ARG002 - see Kind
        """Whether the drop-in prints nothing to stderr."""
        return False

    @abstractmethod
    def story(self, request: Request) -> Reporter:
        """Return the reporter for a request."""
