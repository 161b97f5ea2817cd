"""Pushing to a registry by the engines' own programs, which have the user's credentials."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgload.core.errors import BuildFailed, PlatformMissing, UsageError
from imgload.engines.base import Engine
from imgload.engines.temporary_tags import note
from imgload.oci.digest import Digest
from imgload.oci.jsontext import load_json
from imgload.oci.platform import Platform
from imgload.tools.skaffold.builders import Builder, BuilderName, pinned_to
from imgload.tools.skaffold.process import digest_in, read, run, run_and_read, scratch
from imgload.tools.skaffold.request import Request

_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64}) size: ")
_BUILDX_DIGEST = "containerimage.digest"


def push(program: BuilderName, engine: Engine, image: str) -> Digest:
    """Push an image that an engine has under its name.

    Returns:
        the digest that the registry has it by.

    Raises:
        BuildFailed: when the push failed, or told no digest: Buildah 1.28 hides its errors so.

    """
    if program == "docker":
        said = _PUSHED.search(run_and_read(["docker", "push", image], pinned_to(engine)))
        return _require(said.group(1) if said else "", "docker push")
    with scratch("digest") as path:
        run([program, "push", f"--digestfile={path}", image])
        return _require(path.read_text(), f"{program} push")


def publish(builder: Builder, request: Request) -> Digest:
    """Build for several platforms and push the index over them.

    Raises:
        BuildFailed: when the build or the push failed.
        UsageError: when the platforms are not named.
        PlatformMissing: when the builder left one out.

    """
    if request.every_platform:
        raise UsageError(
            "PLATFORMS is 'all', which no builder takes",
            hint="name them: skaffold build --platform=linux/amd64,linux/arm64",
        )
    with scratch("told") as path:
        way = _by_buildx if builder.program == "docker" else _by_manifest
        return way(builder, request, path)


def _by_buildx(builder: Builder, request: Request, told: Path) -> Digest:
    words = [f"--tag={request.image}", "--push", f"--metadata-file={told}"]
    run(
        ["docker", "buildx", "build", *words, *_build_words(builder, request)],
        request.context,
        pinned_to(builder.engines[0]),
    )
    return _require(str(_parsed(told.read_text()).get(_BUILDX_DIGEST)), "docker buildx build")


def _by_manifest(builder: Builder, request: Request, told: Path) -> Digest:
    """Go by a list of our own: one that is there would only grow with each build."""
    program, listed = builder.program, f"localhost/imgload-{secrets.token_hex(8)}"
    noted = note(builder.engines[0].endpoint.url, listed)
    build = [program, "build", f"--manifest={listed}", *_build_words(builder, request)]
    push_all = [program, "manifest", "push", "--all", f"--digestfile={told}"]
    try:
        run(build, request.context)
        _require_platforms(request, _parsed(read([program, "manifest", "inspect", listed])))
        run([*push_all, listed, f"docker://{request.reference}"])
        return _require(told.read_text(), f"{program} manifest push")
    finally:
        removed = read([program, "manifest", "rm", listed])
        if noted and removed:
            noted.remove()
        elif noted:
            noted.leave()


def _build_words(builder: Builder, request: Request) -> list[str]:
    words = builder.recipe.words()
    return [*words, f"--platform={','.join(map(str, request.platforms))}", "."]


def _parsed(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        found = load_json(text)
        return found if isinstance(found, dict) else {}
    return {}


def _require_platforms(request: Request, index: dict[str, Any]) -> None:
    """Refuse an index that lacks a platform: Podman's cache takes one's image for another's."""
    entries = index.get("manifests") or []
    there = {Platform.from_json(entry.get("platform")) for entry in entries}
    if missing := [platform for platform in request.platforms if platform not in there]:
        raise PlatformMissing(
            f"the builder left out {', '.join(map(str, missing))} of {request.image}",
            hint="its cache took another platform's image for this one's: remove that image, and"
            " build again",
        )


def _require(text: str, command: str) -> Digest:
    digest = digest_in(text)
    if digest is None:
        raise BuildFailed(
            f"{command} told no digest: whether it has pushed the image is not known",
            hint="its own messages stand above",
        )
    return digest
