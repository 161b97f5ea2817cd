"""The file of ``--file``: a list of images with options, as in ``schemas/image-list.json``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from imgload.core import trace
from imgload.core.errors import UsageError, one_line
from imgload.core.files import read_input
from imgload.core.yaml import Mapping, read_documents
from imgload.loader.entries import ImageEntry
from imgload.loader.session import ENGINES

MAX_BYTES = 1 << 20
MAX_IMAGES = 1000
_SINGLE = ("name", "source", "tag", "platform")
_SEVERAL = ("cluster", "nodes")
_WRITE = "write a list: images: [app:dev, {name: db:dev, source: podman}]"
_READ = "check the path; an archive is an argument: imgload load app.tar"


def read_list(file: str) -> list[ImageEntry]:
    """Return the images of a YAML file, or of standard input for ``-``.

    UsageError, which names the file and the image, is raised if it cannot be read or is not valid.
    """
    title = "standard input" if file == "-" else one_line(f"{file:.300}")
    try:
        documents = list(read_documents(read_input(file, MAX_BYTES, _READ)))
    except ValueError as error:
        hint = _WRITE if str(error).startswith("line ") else _READ
        raise UsageError(f"{title} is not valid YAML: {error}", hint=hint) from error
    if any(isinstance(document, dict) and "apiVersion" in document for document in documents):
        message = f"{title} is a Kubernetes manifest, not a list of images"
        hint = f"imgload load --from-manifests {shlex.quote(file)}"
        raise UsageError(message, hint=hint)
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, Mapping):
        message = f"{title} is not one mapping with the key 'images'"
        raise UsageError(message, hint=_WRITE)
    _require_keys(document, ("images",), title)
    entries = document.get("images")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_IMAGES:
        raise UsageError(f"{title}: images must be a list of 1 to {MAX_IMAGES}", hint=_WRITE)
    trace.log(f"list: {title} has {len(entries)} images")
    folder = "" if file == "-" else os.path.dirname(file)  # noqa: PTH120 - not resolved
    return [_image(entry, f"{title}: image {n}", folder) for n, entry in enumerate(entries, 1)]


def _image(entry: Any, title: str, folder: str) -> ImageEntry:
    if isinstance(entry, str):
        entry = Mapping(name=entry)
    if not isinstance(entry, Mapping):
        raise UsageError(f"{title} must be a name, or a mapping with options", hint=_WRITE)
    title += f" (line {entry.line})" if entry.line else ""
    _require_keys(entry, (*_SINGLE, *_SEVERAL), title)
    for key, value in entry.items():
        items = value if key in _SEVERAL and isinstance(value, list) and value else [value]
        if not all(isinstance(item, str) and item for item in items):
            wanted = "one or several strings" if key in _SEVERAL else "a string"
            message = f"{title}: {key} must be {wanted}"
            raise UsageError(message, hint="write a value, or omit the key")
    source = entry.get("source")
    if source and source not in {*ENGINES, "-"} and "://" not in source:
        path = os.path.join(folder, source)  # noqa: PTH118 - not normalised
        entry["source"] = path if os.path.exists(path) or "/" in source else source  # noqa: PTH110
    try:
        return ImageEntry(**entry)
    except UsageError as error:
        raise type(error)(f"{title}: {error.message}", hint=error.hint or _WRITE) from error


def _require_keys(mapping: Mapping, keys: Sequence[str], title: str) -> None:
    for key in mapping.keys() - set(keys):
        from difflib import get_close_matches  # noqa: PLC0415 - only for the hint

        close = get_close_matches(key, keys, 1)
        hint = f"write {shlex.quote(close[0])}" if close else f"use one of: {shlex.join(keys)}"
        raise UsageError(f"{title}: no such key: {key!r:.100}", hint=hint)
