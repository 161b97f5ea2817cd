"""The current context of kubectl's configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_KEY = "current-context"
_STARTS = {"MappingStartEvent", "SequenceStartEvent"}
_ENDS = {"MappingEndEvent", "SequenceEndEvent"}


def current_context(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the current context's name, or None.

    ``KUBECONFIG`` may list several files, and the first that sets a current context wins
    (kubectl, "Organizing Cluster Access Using kubeconfig Files").
    """
    variables = os.environ if environ is None else environ
    listed = variables.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    paths = (Path(part) for part in listed.split(os.pathsep) if part)
    return next((context for path in paths if (context := _context_in(path))), None)


def invalid(path: Path) -> str:
    """Return why a file cannot be used; empty where it can, or where there is none."""
    import yaml  # noqa: PLC0415 - start-up

    try:
        for _ in yaml.parse(path.read_text(encoding="utf-8"), _loader()):
            pass
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        return f"it is not valid YAML: {str(error).splitlines()[0]}"
    return ""


def _loader() -> Any:
    import yaml  # noqa: PLC0415 - start-up

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _context_in(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    import yaml  # noqa: PLC0415 - start-up, and only where there is a kubeconfig

    try:
        return _top_level(yaml.parse(text, _loader()), _KEY)
    except (yaml.YAMLError, RecursionError):
        return None


def _top_level(events: Iterable[Any], key: str) -> str | None:
    """Return a scalar of the outermost mapping, or None.

    Events are read and no document is built, so that nothing in the file is run, converted or
    nested without end.
    """
    depth, names = 0, True
    last: str | None = None
    for event in events:
        value = getattr(event, "value", None)
        if depth == 1 and not names and last == key:
            return value if value and _is_text(event) else None
        kind = type(event).__name__
        if depth == 0 and kind == "SequenceStartEvent":
            return None
        depth += kind in _STARTS
        depth -= kind in _ENDS
        if depth == 1 and kind not in _STARTS:
            last, names = value, not names
    return None


def _is_text(event: Any) -> bool:
    """Whether YAML takes a scalar for a string: ``~`` and ``1`` are none, ``"1"`` is one."""
    from yaml import ScalarNode  # noqa: PLC0415 - start-up
    from yaml.resolver import Resolver  # noqa: PLC0415

    resolver: Any = Resolver()
    tag = event.tag or resolver.resolve(ScalarNode, event.value, event.implicit)
    return bool(tag == "tag:yaml.org,2002:str")
