"""Platforms (OCI image spec, image-index.md), normalised as in containerd."""

from __future__ import annotations

import re
from collections.abc import Collection

import attrs

from imgload.core.errors import ArchiveInvalid, UsageError

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
}
_KNOWN = {
    *_ARCHITECTURES,
    *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x"),
}
"""Architectures that may be written without an operating system."""
_PLATFORM = re.compile(r"[\w.-]+(/[\w.-]+){0,2}", re.ASCII)
_WORD = re.compile(r"[\w.+-]{0,64}", re.ASCII)
_SYSTEMS = {"": "linux", "macos": "darwin"}
_OLDEST = {"amd64": 1, "arm64": 8, "arm": 5}
_VARIANT = re.compile(r"v([0-9])")
_ALSO_RUNS = {"amd64": {"386"}, "arm64": {"arm"}}
"""Older architectures that most processors run as well."""


@attrs.frozen
class Platform:
    """Operating system, architecture and variant, in containerd's normal form.

    An image without an architecture has no platform (`ANY_PLATFORM`): it runs on every node, as
    containerd unpacks it on every node. `os_version` and `os_features` are compared by `rank` only.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = attrs.field(default="", eq=False)
    os_features: tuple[str, ...] = attrs.field(default=(), eq=False)

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """Normalise like containerd's ``platforms.Normalize``: aarch64 is arm64, and so on."""
        arch, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
        variant = implied or variant.lower()
        if arch in {"arm", "arm64"} and variant.isdigit():
            variant = f"v{variant}"
        if variant == {"arm64": "v8", "amd64": "v1"}.get(arch):
            variant = ""
        if arch == "arm" and not variant:
            variant = "v7"
        return cls(_SYSTEMS.get(os.lower(), os.lower()), arch, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse ``os/arch[/variant]``, or an architecture alone.

        Raises:
            UsageError: if it is neither.

        """
        parts = text.split("/") if isinstance(text, str) and _PLATFORM.fullmatch(text) else []
        if not parts or (len(parts) == 1 and text.lower() not in _KNOWN):
            raise UsageError(
                f"not a platform: {text!r}", hint="write it as os/arch, for example linux/arm64"
            )
        return cls.of(*(parts if len(parts) > 1 else ["linux", *parts]))

    @classmethod
    def from_json(cls, value: object) -> Platform | None:
        """Read a platform from a parsed document; None if it has no architecture.

        Raises:
            ArchiveInvalid: if they are not words, since they reach terminals and commands.

        """
        if not isinstance(value, dict) or not value.get("architecture"):
            return None
        fields = [value.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(field, str) and _WORD.fullmatch(field) for field in fields):
            raise ArchiveInvalid(f"not a platform: {fields!r:.200}")
        features = value.get("os.features")
        return attrs.evolve(
            cls.of(*fields),
            os_version="".join(_words(value.get("os.version"))),
            os_features=tuple(_words(*features) if isinstance(features, list) else ()),
        )

    def to_json(self) -> dict[str, str]:
        """Return the platform as in a descriptor."""
        value = {"architecture": self.architecture, "os": self.os}
        return {**value, "variant": self.variant} if self.variant else value

    def best(self, available: Collection[Platform]) -> Platform | None:
        """Return the best available platform for this one: itself, or the newest older variant.

        Like containerd's ``platforms.Only``: an image for ``arm/v6`` serves ``arm/v7``, but one for
        ``amd64/v3`` does not serve ``amd64``.
        """
        variants = [self]
        oldest = _OLDEST.get(self.architecture, 0)
        if oldest and (match := _VARIANT.fullmatch(self.variant)):
            numbers = range(int(match[1]) - 1, oldest - 1, -1)
            variants += [Platform.of(self.os, self.architecture, f"v{n}") for n in numbers]
        unspecified = (platform for platform in available if platform.is_unspecified)
        return next((p for p in variants if p in available), next(unspecified, None))

    def runs(self, image: Platform) -> bool:
        """Whether a machine of this platform runs an image without emulation."""
        older = _ALSO_RUNS.get(self.architecture, set())
        runs = image.os == self.os and image.architecture in {self.architecture, *older}
        return runs or image.is_unspecified

    @property
    def rank(self) -> tuple[int, bool]:
        """The order of images for one platform: containerd prefers one without os.features."""
        return len(self.os_features), bool(self.os_version)

    @property
    def is_unspecified(self) -> bool:
        """Whether no architecture is known, so that no machine is excluded."""
        return not self.architecture

    @property
    def is_unknown(self) -> bool:
        """Whether this is BuildKit's ``unknown/unknown``, which marks attestations."""
        return self.os == "unknown" or self.architecture == "unknown"

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant))) or "any"


ANY_PLATFORM = Platform("", "")
"""The platform of an image that declares none."""


def _words(*values: object) -> list[str]:
    return [value for value in values if isinstance(value, str) and _WORD.fullmatch(value)]
