"""What Skaffold asks of a custom builder, out of the environment (skaffold.dev, custom build)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import attrs

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference

ALL_PLATFORMS = "all"
_BY_HAND = "to run it by hand: IMAGE=app:dev BUILD_CONTEXT=. imgload skaffold"
_YES_OR_NO = {"true": True, "false": False, "": False}


@attrs.frozen
class Request:
    """One build that is asked for.

    Args:
        image: the name to build, as it was given.
        reference: the same, parsed.
        context: the folder to build from.
        push: whether to push the image, and not to load it.
        platforms: what it is to run on; empty for the builder's own.
        every_platform: whether Skaffold asked for all of them, without saying which.

    """

    image: str
    reference: Reference
    context: Path
    push: bool = False
    platforms: tuple[Platform, ...] = ()
    every_platform: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Request:
        """Read the variables that Skaffold sets, and refuse those that it has not.

        Skaffold puts the user's own variables after its own, so that an ``IMAGE`` exported by a
        shell wins over the one to be built; ``IMAGE_REPO`` and ``IMAGE_TAG`` give it away.

        Raises:
            UsageError: when a variable is missing, contradicts another, or is not understood.

        """
        _require(environ)
        image = environ["IMAGE"]
        reference = Reference.parse(image)
        _refuse_exported(image, environ)
        platforms = [part.strip() for part in environ.get("PLATFORMS", "").split(",")]
        return cls(
            image=image,
            reference=reference,
            context=_folder(environ["BUILD_CONTEXT"]),
            push=_is_true("PUSH_IMAGE", environ.get("PUSH_IMAGE", "")),
            platforms=tuple(Platform.parse(p) for p in platforms if p and p != ALL_PLATFORMS),
            every_platform=ALL_PLATFORMS in platforms,
        )

    @property
    def multi_platform(self) -> bool:
        """Whether more than one platform is asked for."""
        return self.every_platform or len(self.platforms) > 1


def _require(environ: Mapping[str, str]) -> None:
    missing = [name for name in ("IMAGE", "BUILD_CONTEXT") if not environ.get(name)]
    if not missing:
        return
    exported = "" if "IMAGE" in missing else "; the IMAGE there is comes from your own shell"
    raise UsageError(
        "this is a custom builder for Skaffold, which sets IMAGE and BUILD_CONTEXT:"
        f" {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set{exported}",
        hint=_BY_HAND,
    )


def _refuse_exported(image: str, environ: Mapping[str, str]) -> None:
    repository, tag = environ.get("IMAGE_REPO", ""), environ.get("IMAGE_TAG", "")
    named = f"{repository}:{tag}" if tag else repository
    if not repository or _same(image.partition("@")[0], named):
        return
    raise UsageError(
        f"IMAGE is {image!r}, while IMAGE_REPO and IMAGE_TAG say {named!r}: one of them is exported"
        " by your own shell, where it overrides Skaffold's",
        hint="run Skaffold without it: env -u IMAGE -u IMAGE_REPO -u IMAGE_TAG skaffold dev",
    )


def _same(image: str, named: str) -> bool:
    try:
        return Reference.parse(image) == Reference.parse(named)
    except ReferenceInvalid:
        return False


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise UsageError(
            f"BUILD_CONTEXT is no folder: {text!r}",
            hint="when your own shell exports it: env -u BUILD_CONTEXT skaffold dev",
        )
    return folder.absolute()


def _is_true(name: str, text: str) -> bool:
    if text.lower() not in _YES_OR_NO:
        raise UsageError(
            f"{name} is neither true nor false: {text!r}",
            hint=f"when your own shell exports it: env -u {shlex.quote(name)} skaffold dev",
        )
    return _YES_OR_NO[text.lower()]
