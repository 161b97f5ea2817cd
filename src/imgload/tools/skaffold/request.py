"""Skaffold's request to a custom builder, in environment variables (skaffold.dev, custom build)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference

_ALL = "all"
_BOOLS = {"true": True, "false": False, "": False}


@attrs.frozen
class Request:
    """A request to build an image from a folder, and to push it, or else load it.

    The image is the name as Skaffold passes it, and the reference the same name, parsed. Without
    platforms the builder's own is requested, or all of them if `every_platform`.
    """

    image: str
    reference: Reference
    context: Path
    push: bool = False
    platforms: tuple[Platform, ...] = ()
    every_platform: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Request:
        """Parse the variables that Skaffold sets, and refuse those that the user's shell exports.

        Skaffold appends the user's variables to its own, so an ``IMAGE`` exported by a shell
        overrides the requested one; a different ``IMAGE_REPO`` or ``IMAGE_TAG`` reveals it. Raises
        UsageError when a variable is missing, contradicts another, or is not valid.
        """
        missing = [name for name in ("IMAGE", "BUILD_CONTEXT") if not environ.get(name)]
        if missing:
            exported = "" if "IMAGE" in missing else "; your own shell exports IMAGE"
            raise UsageError(
                "this is a custom builder for Skaffold, which sets IMAGE and BUILD_CONTEXT:"
                f" {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set{exported}",
                hint="to run it by hand: IMAGE=app:dev BUILD_CONTEXT=. imgload skaffold",
            )
        image, context = environ["IMAGE"], Path(environ["BUILD_CONTEXT"])
        reference = Reference.parse(image)
        _refuse_exported(image, environ)
        if not context.is_dir():
            raise UsageError(
                f"BUILD_CONTEXT is not a folder: {str(context)!r}",
                hint="if your own shell exports it: env -u BUILD_CONTEXT skaffold dev",
            )
        push = environ.get("PUSH_IMAGE", "")
        if push.lower() not in _BOOLS:
            raise UsageError(
                f"PUSH_IMAGE is neither true nor false: {push!r}",
                hint="if your own shell exports it: env -u PUSH_IMAGE skaffold dev",
            )
        platforms = [part.strip() for part in environ.get("PLATFORMS", "").split(",")]
        return cls(
            image=image,
            reference=reference,
            context=context.absolute(),
            push=_BOOLS[push.lower()],
            platforms=tuple(Platform.parse(p) for p in platforms if p and p != _ALL),
            every_platform=_ALL in platforms,
        )

    @property
    def multi_platform(self) -> bool:
        """Whether more than one platform is requested."""
        return self.every_platform or len(self.platforms) > 1


def _refuse_exported(image: str, environ: Mapping[str, str]) -> None:
    repository, tag = environ.get("IMAGE_REPO", ""), environ.get("IMAGE_TAG", "")
    expected = f"{repository}:{tag}" if tag else repository
    with suppress(ReferenceInvalid):
        if Reference.parse(image.partition("@")[0]) == Reference.parse(expected):
            return
    if repository:
        raise UsageError(
            f"IMAGE is {image!r}, while IMAGE_REPO and IMAGE_TAG say {expected!r}: your own shell"
            " exports one of them, which overrides the value that Skaffold sets",
            hint="run Skaffold without it: env -u IMAGE -u IMAGE_REPO -u IMAGE_TAG skaffold dev",
        )
