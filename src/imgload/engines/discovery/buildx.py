"""Finds the builder that docker-buildx uses, from its files: running it takes as long as a build.

``current`` has the name chosen by ``docker buildx use``, and ``instances/NAME`` a builder's driver
(docker/buildx, store/store.go). A builder without such a file belongs to a Docker context, and has
the driver ``docker``: the engine's own BuildKit, which stores images in the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.candidates import docker_folder, read_json
from imgload.oci.document import text_at

Environ = Mapping[str, str]
_FALSE = {"0", "f", "F", "false", "False", "FALSE"}
_NAME = re.compile(r"[a-z][\w.-]{0,127}", re.ASCII)
_DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


def buildx_builder(environ: Environ) -> str | None:
    """Return the builder of ``docker buildx build``, unless it stores images in the engine."""
    folder = Path(environ.get("BUILDX_CONFIG") or docker_folder(environ) / "buildx")
    with suppress(EngineUnreachable):  # buildx itself complains of unreadable files
        name = (environ.get("BUILDX_BUILDER") or _current(folder, _endpoint(environ))).lower()
        instance = read_json(folder / "instances" / name) if _NAME.fullmatch(name) else None
        if text_at(instance, "Driver") not in {"", "docker"}:
            return name
    return None


def build_builder(environ: Environ) -> str | None:
    """Return the builder of ``docker build``, unless it stores images in the engine.

    Without ``BUILDX_BUILDER``, that is buildx's only after ``docker buildx install`` (docker/cli,
    cmd/docker/builder.go).
    """
    if environ.get("DOCKER_BUILDKIT") in _FALSE:
        return None
    with suppress(EngineUnreachable):
        settings = read_json(docker_folder(environ) / "config.json")
        if environ.get("BUILDX_BUILDER") or text_at(settings, "aliases", "builder") == "buildx":
            return buildx_builder(environ)
    return None


def _endpoint(environ: Environ) -> str:
    """Return the key under which buildx stores the current builder: an address, or a context."""
    if address := environ.get("DOCKER_HOST"):
        return address
    settings = read_json(docker_folder(environ) / "config.json")
    context = environ.get("DOCKER_CONTEXT") or text_at(settings, "currentContext")
    return _DEFAULT_ADDRESS if context in {"", "default"} else context


def _current(folder: Path, endpoint: str) -> str:
    from hashlib import sha256  # noqa: PLC0415 - start-up

    current = read_json(folder / "current")
    if isinstance(current, dict) and (
        current.get("Global") is True or current.get("Key") == endpoint
    ):
        return text_at(current, "Name")
    default = folder / "defaults" / sha256(endpoint.encode()).hexdigest()[:20]
    with suppress(OSError, UnicodeDecodeError):
        return default.read_text()
    return ""
