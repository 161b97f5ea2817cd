"""``k3d image import``, argument by argument, as k3d has it (k3d, cmd/image/imageImport.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from imgload.core.errors import UsageError
from imgload.tools.dropins.pflag import Command, Flag, Given, find, parse
from imgload.tools.dropins.tool import HandOver, Help, Request, Story, Tool

_IMPORT = Command(
    ("import", "load"),
    (
        Flag("cluster", "c", "strings"),
        Flag("keep-tarball", "k", "bool"),
        Flag("keep-tools", "t", "bool"),
        Flag("mode", "m"),
    ),
)
_IMAGE = Command(("image", "images"), below=(_IMPORT,))
_LOGGING = tuple(Flag(name, takes="bool") for name in ("verbose", "trace", "timestamps"))
_K3D = Command(("k3d",), (Flag("version", takes="bool"),), _LOGGING, (_IMAGE,))
_DEFAULT_NAME = "k3s-default"
_MODES = ("auto", "direct", "tools", "tools-node")
"""k3d's help calls the last one ``tools``, and its code ``tools-node``."""
_HELP = """\
Imports images into the nodes of clusters; only what they lack is sent, and what they have is proven

Usage:
  k3d image import [IMAGE | ARCHIVE]... [flags]

IMAGE is a name or an image ID, in Docker or Podman; ARCHIVE a docker-archive, an OCI archive, also
with gzip or zstd, or - for standard input. A file comes before an image of its name.

Aliases:
  import, load

Flags:
  -c, --cluster NAME   a cluster; may be repeated (default: k3s-default)
  -k, --keep-tarball   nothing: there is no tarball
  -t, --keep-tools     nothing: there are no tools
  -m, --mode MODE      nothing: auto, direct and tools are one and the same
      --verbose        show what was proven on each node
  -h, --help           this text

This is imgload in k3d's place: any other command goes to the real k3d.
"""


class K3d(Tool):
    """k3d."""

    name = "k3d"
    takes = "k3d image import"
    homepage = "https://k3d.io"
    label = "k3d.cluster"
    name_flag = "--cluster"
    makes = "k3d cluster create"

    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        """Return what a command line means."""
        del environ
        path, rest = find(_K3D, arguments)
        if path[-1] is not _IMPORT:
            return HandOver()
        given = parse(path, rest)
        if given.last("help", default=False):
            return Help(_HELP)
        if not given.words:
            raise UsageError(
                "requires at least 1 arg(s), only received 0", hint="k3d image import --help"
            )
        if (mode := given.last("mode", _MODES[-1])) not in _MODES:
            raise UsageError(f"Unknown image loading mode '{mode}'", hint="leave --mode out")
        return _request(given)

    def silenced(self, arguments: Sequence[str]) -> bool:
        """Return no: k3d has no such flag."""
        del arguments
        return False

    def story(self, request: Request) -> Story:
        """Return who tells of a request in k3d's words."""
        from imgload.tools.dropins.k3d_messages import K3dStory  # noqa: PLC0415 - start-up

        del request
        return K3dStory()


def _request(given: Given) -> Request:
    words = tuple(dict.fromkeys(given.words))
    piped = words == ("-",)
    files = tuple(word for word in words if Path(word).is_file() and not piped)
    return Request(
        clusters=tuple(dict.fromkeys(given.flags.get("cluster", (_DEFAULT_NAME,)))),
        images=tuple(word for word in words if word not in files and not piped),
        archives=files,
        piped=piped,
        verbosity=int(any(given.last(flag, default=False) for flag in ("verbose", "trace"))),
    )
