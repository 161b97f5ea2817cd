"""Push to a registry with the engines' own programs, which have the user's credentials."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgload.core.errors import BuildFailed, PlatformMissing, UsageError
from imgload.engines.base import Engine
from imgload.engines.temporary_tags import note_temporary_name
from imgload.oci.digest import Digest
from imgload.oci.document import load_json
from imgload.oci.platform import Platform
from imgload.tools.skaffold.builders import Builder, BuilderName, docker_environ
from imgload.tools.skaffold.process import parse_digest, read, run, run_and_read, temporary_file
from imgload.tools.skaffold.request import Request

_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64}) size: ")
_BUILDX_DIGEST = "containerimage.digest"


def push(program: BuilderName, engine: Engine, image: str) -> Digest:
    """Push an engine's image, and return its digest in the registry.

    Raises BuildFailed when the push fails, or prints no digest: Buildah 1.28 hides its errors so.
    """
    if program == "docker":
        output = run_and_read(["docker", "push", image], docker_environ(engine))
        match = _PUSHED.search(output)
        return _require_digest(match.group(1) if match else "", "docker push")
    with temporary_file("digest") as file:
        run([program, "push", f"--digestfile={file}", image])
        return _require_digest(file.read_text(), f"{program} push")


def publish(builder: Builder, request: Request) -> Digest:
    """Build for several platforms, push their index, and return its digest.

    Raises BuildFailed when the build or the push fails, UsageError when the request does not name
    the platforms, and PlatformMissing when the builder omitted one.
    """
    if request.every_platform:
        raise UsageError(
            "PLATFORMS is 'all', which no builder supports",
            hint="name them: skaffold build --platform=linux/amd64,linux/arm64",
        )
    platforms = f"--platform={','.join(map(str, request.platforms))}"
    options = [*builder.recipe.options(), platforms, "."]
    with temporary_file("output") as file:
        if builder.program != "docker":
            return _push_list(builder, request, options, file)
        argv = ["docker", "buildx", "build", f"--tag={request.image}", "--push"]
        environ = docker_environ(builder.engines[0])
        run([*argv, f"--metadata-file={file}", *options], request.context, environ)
        digest = _parse_object(file.read_text()).get(_BUILDX_DIGEST)
        return _require_digest(str(digest), "docker buildx build")


def _push_list(builder: Builder, request: Request, options: list[str], file: Path) -> Digest:
    """Build and push a temporary manifest list: an existing one would grow with each build."""
    program, name = builder.program, f"localhost/imgload-{secrets.token_hex(8)}"
    lease = note_temporary_name(builder.engines[0].endpoint.url, name)
    push_all = [program, "manifest", "push", "--all", f"--digestfile={file}"]
    try:
        run([program, "build", f"--manifest={name}", *options], request.context)
        _require_platforms(request, _parse_object(read([program, "manifest", "inspect", name])))
        run([*push_all, name, f"docker://{request.reference}"])
        return _require_digest(file.read_text(), f"{program} manifest push")
    finally:
        removed = read([program, "manifest", "rm", name])
        if lease and removed:
            lease.remove()
        elif lease:
            lease.release()


def _parse_object(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        value = load_json(text)
        return value if isinstance(value, dict) else {}
    return {}


def _require_platforms(request: Request, index: dict[str, Any]) -> None:
    """Raise PlatformMissing if Podman's cache replaced one platform's image by another's."""
    built = {Platform.from_json(entry.get("platform")) for entry in index.get("manifests") or []}
    if missing := [platform for platform in request.platforms if platform not in built]:
        raise PlatformMissing(
            f"the builder omitted {', '.join(map(str, missing))} from {request.image}",
            hint="its cache used another platform's image: remove that image and build again",
        )


def _require_digest(text: str, command: str) -> Digest:
    digest = parse_digest(text)
    if digest is None:
        raise BuildFailed(
            f"{command} printed no digest, so the image may not have been pushed",
            hint="its own messages stand above",
        )
    return digest
