"""The current context of kubectl's configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_STARTS = {"MappingStartEvent", "SequenceStartEvent"}
_ENDS = {"MappingEndEvent", "SequenceEndEvent"}


def current_context(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the current context's name, or None.

    ``KUBECONFIG`` may list several files, and the first that sets a current context wins
    (kubectl, "Organizing Cluster Access Using kubeconfig Files").
    """
    variables = os.environ if environ is None else environ
    paths = variables.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    for path in paths.split(os.pathsep):
        try:
            context = path and _top_level(_events(Path(path)), "current-context")
        except (OSError, ValueError):
            continue
        if context:
            return context
    return None


def invalid(path: Path) -> str:
    """Return why a kubeconfig file cannot be used; empty if it can, or does not exist."""
    try:
        for _ in _events(path):
            pass
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return f"it is not valid YAML: {error}"
    return ""


def _events(path: Path) -> Iterator[Any]:
    """Parse YAML without building a document: nothing runs, converts or nests endlessly.

    OSError if the file cannot be read, ValueError if it is not valid.
    """
    data = path.read_bytes()
    import yaml  # noqa: PLC0415 - start-up, and only where there is a kubeconfig

    try:
        yield from yaml.parse(data.decode(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error


def _top_level(events: Iterable[Any], key: str) -> str | None:
    """Return a scalar of the outermost mapping, or None."""
    depth, is_key = 0, True
    last_key: str | None = None
    for event in events:
        value = getattr(event, "value", None)
        if depth == 1 and not is_key and last_key == key:
            return value if value and _is_text(event) else None
        kind = type(event).__name__
        if depth == 0 and kind == "SequenceStartEvent":
            return None
        depth += (kind in _STARTS) - (kind in _ENDS)
        if depth == 1 and kind not in _STARTS:
            last_key, is_key = value, not is_key
    return None


def _is_text(event: Any) -> bool:
    """Return whether YAML reads a scalar as a string: ``"1"`` is one, ``~`` and ``1`` are not."""
    from yaml import ScalarNode  # noqa: PLC0415 - start-up
    from yaml.resolver import Resolver  # noqa: PLC0415

    resolver: Any = Resolver()
    tag = event.tag or resolver.resolve(ScalarNode, event.value, event.implicit)
    return bool(tag == "tag:yaml.org,2002:str")
