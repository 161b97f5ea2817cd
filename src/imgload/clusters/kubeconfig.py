"""The current context of kubectl's configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def current_context(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the current context's name, or None.

    ``KUBECONFIG`` may list several files, and the first that sets a current context wins
    (kubectl, "Organizing Cluster Access Using kubeconfig Files").
    """
    variables = os.environ if environ is None else environ
    listed = variables.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    paths = (Path(part) for part in listed.split(os.pathsep) if part)
    return next((context for path in paths if (context := _context_in(path))), None)


def _context_in(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    import yaml  # noqa: PLC0415 - start-up, and only where there is a kubeconfig

    try:
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError:
        return None
    context = document.get("current-context") if isinstance(document, dict) else None
    return context if isinstance(context, str) and context else None
