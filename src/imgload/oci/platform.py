"""Platforms (OCI image spec, image-index.md, and containerd's normalisation)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

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
_ALONE = {
    *_ARCHITECTURES,
    *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x"),
}
"""What is known for an architecture where no system is written before it."""
_PLATFORM = re.compile(r"[\w.-]+(/[\w.-]+){0,2}", re.ASCII)
_WORD = re.compile(r"[\w.+-]{0,64}", re.ASCII)
_SYSTEMS = {"": "linux", "macos": "darwin"}
_OLDEST = {"amd64": 1, "arm64": 8, "arm": 5}
_VARIANT = re.compile(r"v([0-9])")
_ALSO_RUNS = {"amd64": {"386"}, "arm64": {"arm"}}
"""Older architectures that a machine's processor usually runs, too."""
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@attrs.frozen
class Platform:
    """Operating system, architecture and variant, in containerd's normal form."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """Normalise as containerd's ``platforms.Normalize`` does: aarch64 is arm64, and so on."""
        arch, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
        variant = implied or variant.lower()
        if arch in {"arm", "arm64"} and variant.isdigit():
            variant = f"v{variant}"
        if variant == _DEFAULT_VARIANT.get(arch) and arch != "arm":
            variant = ""
        if arch == "arm" and not variant:
            variant = "v7"
        return cls(_SYSTEMS.get(os.lower(), os.lower()), arch, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse ``os/arch[/variant]``, or an architecture alone.

        Raises:
            UsageError: when it is neither.

        """
        parts = text.split("/") if isinstance(text, str) and _PLATFORM.fullmatch(text) else []
        if not parts or (len(parts) == 1 and text.lower() not in _ALONE):
            raise UsageError(
                f"not a platform: {text!r}", hint="write it as os/arch, for example linux/arm64"
            )
        return cls.of(*(parts if len(parts) > 1 else ["linux", *parts]))

    @classmethod
    def from_json(cls, value: object) -> Platform | None:
        """Read ``os``, ``architecture`` and ``variant`` out of a parsed document.

        Raises:
            ArchiveInvalid: when they are no words, which would reach terminals and commands.

        """
        if not isinstance(value, dict) or not value.get("architecture"):
            return None
        fields = [value.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(field, str) and _WORD.fullmatch(field) for field in fields):
            raise ArchiveInvalid(f"not a platform: {fields!r:.200}")
        return cls.of(*fields)

    def to_json(self) -> dict[str, str]:
        """Return the platform as a descriptor has it."""
        value = {"architecture": self.architecture, "os": self.os}
        return {**value, "variant": self.variant} if self.variant else value

    def best(self, there: Collection[Platform]) -> Platform | None:
        """Return the platform that stands for this one: itself, or the newest variant before it.

        That is containerd's choice (``platforms.Only``): an image for ``arm/v6`` will do for
        ``arm/v7``. One for ``amd64/v3`` will not do for ``amd64``.
        """
        return next((platform for platform in self._variants() if platform in there), None)

    def _variants(self) -> Iterator[Platform]:
        yield self
        oldest = _OLDEST.get(self.architecture, 0)
        if oldest and (match := _VARIANT.fullmatch(self.variant)):
            for number in range(int(match.group(1)) - 1, oldest - 1, -1):
                yield Platform.of(self.os, self.architecture, f"v{number}")

    def runs(self, image: Platform) -> bool:
        """Whether a machine of this platform runs an image without emulation."""
        also = _ALSO_RUNS.get(self.architecture, set())
        return image.os == self.os and image.architecture in {self.architecture, *also}

    @property
    def is_unknown(self) -> bool:
        """Whether this is BuildKit's ``unknown/unknown``, which marks attestations."""
        return self.os == "unknown" or self.architecture == "unknown"

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
