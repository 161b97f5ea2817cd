"""The current context of kubectl's configuration, and the values of other YAML files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

_STARTS = {"MappingStartEvent", "SequenceStartEvent"}
_ENDS = {"MappingEndEvent", "SequenceEndEvent"}


def current_context(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the current context's name, or None."""
    return _current(environ)[0]


def current_file() -> Path | None:
    """Return the file that sets the current context, or None."""
    return _current(None)[1]


def _current(environ: Mapping[str, str] | None) -> tuple[str | None, Path | None]:
    """Return the current context's name, and the file that sets it.

    ``KUBECONFIG`` may list several files, and the first that sets a current context wins
    (kubectl, "Organizing Cluster Access Using kubeconfig Files").
    """
    for path in _paths(os.environ if environ is None else environ):
        try:
            context = _top_level(_events(path), "current-context")
        except (OSError, ValueError):
            continue
        if context:
            return context, path
    return None, None


def _paths(environ: Mapping[str, str]) -> list[Path]:
    paths = environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return [Path(path) for path in paths.split(os.pathsep) if path]


def invalid_files() -> Iterator[tuple[str, str]]:
    """Yield why each kubeconfig file that exists cannot be used, and a hint."""
    for path in _paths(os.environ):
        hint = "correct it"
        try:
            for _ in _events(path):
                pass
        except FileNotFoundError:
            continue
        except OSError as error:
            why = error.strerror or str(error)
            if isinstance(error, PermissionError):
                hint = f'make it readable: sudo chown "$USER" {shlex.quote(str(path))}'
        except ValueError as error:
            why = f"it is not valid YAML: {error}"
        else:
            continue
        unset = "; or unset KUBECONFIG" if os.environ.get("KUBECONFIG") else ""
        yield f"the kubeconfig {path} cannot be used: {why}", f"{hint}{unset}"


def read_scalars(data: bytes) -> dict[tuple[str, ...], str]:
    """Return the scalars of nested mappings in a YAML document, as written; ValueError."""
    scalars: dict[tuple[str, ...], str] = {}
    for keys, event in _scalars(_parse(data)):
        scalars.setdefault(keys, event.value)
    return scalars


def _events(path: Path) -> Iterator[Any]:
    """Parse a file; OSError if it cannot be read, ValueError if it is not valid."""
    return _parse(path.read_bytes())


def _parse(data: bytes) -> Iterator[Any]:
    from imgload.core.yaml import parse_events  # noqa: PLC0415 - only if there is a file

    return parse_events(data)


def _top_level(events: Iterable[Any], key: str) -> str | None:
    """Return a string of the outermost mapping, or None."""
    from imgload.core.yaml import is_text  # noqa: PLC0415 - only if there is a file

    for keys, event in _scalars(events):
        if keys == (key,):
            return str(event.value) if event.value and is_text(event) else None
    return None


@attrs.define
class _Collection:
    """A collection that is being read: the current key of a mapping, and whether one comes next."""

    is_mapping: bool
    key: str | None = None
    at_key: bool = True


def _scalars(events: Iterable[Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the scalars whose parents are all mappings, with their keys."""
    parents: list[_Collection] = []
    for event in events:
        kind, key = type(event).__name__, None
        if kind in _STARTS:
            parents.append(_Collection(kind == "MappingStartEvent"))
            continue
        if kind in _ENDS:
            parents.pop()
        elif kind == "ScalarEvent":
            key = event.value
            keys = tuple(parent.key for parent in parents if parent.is_mapping and parent.key)
            if parents and not parents[-1].at_key and len(keys) == len(parents):
                yield keys, event
        elif kind != "AliasEvent":
            continue
        if parents:
            parents[-1].key = key if parents[-1].at_key else None
            parents[-1].at_key = not parents[-1].at_key
