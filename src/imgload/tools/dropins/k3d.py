"""``k3d image import``, with the same arguments as k3d's (k3d, cmd/image/imageImport.go)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imgload.core.errors import UsageError
from imgload.loader.events import Event, SendingStarted
from imgload.loader.report import Report
from imgload.tools.dropins.pflag import Command, Flag, find, parse
from imgload.tools.dropins.tool import HandOver, Help, Reporter, Request, Tool

_IMPORT = Command(
    ("import", "load"),
    (
        Flag("cluster", "c"),
        Flag("keep-tarball", "k", "bool"),
        Flag("keep-tools", "t", "bool"),
        Flag("mode", "m"),
    ),
)
_IMAGE = Command(("image", "images"), subcommands=(_IMPORT,))
_LOGGING = tuple(Flag(name, takes="bool") for name in ("verbose", "trace", "timestamps"))
_K3D = Command(("k3d",), (Flag("version", takes="bool"),), _LOGGING, (_IMAGE,))
_DEFAULT_NAME = "k3s-default"
_MODES = ("auto", "direct", "tools", "tools-node")
"""k3d's help calls the last one ``tools``, and its code ``tools-node``."""
_HELP = """\
Imports images into the nodes of clusters, sends only missing layers, and verifies every node

Usage:
  k3d image import [IMAGE | ARCHIVE]... [flags]

IMAGE is a name or ID of an image in Docker or Podman. ARCHIVE is a docker-archive or OCI archive,
optionally compressed with gzip or zstd, or - for standard input. A file takes precedence over an
image of the same name.

Aliases:
  import, load

Flags:
  -c, --cluster NAME   a cluster; may be repeated (default: k3s-default)
  -k, --keep-tarball   ignored: imgload writes no tarball
  -t, --keep-tools     ignored: imgload starts no tools container
  -m, --mode MODE      ignored: auto, direct and tools are the same
      --verbose        show the verification of each node
  -h, --help           this text

This is imgload's drop-in for k3d: every other command goes to the real k3d.
"""


class K3d(Tool):
    """The drop-in for k3d."""

    name = "k3d"
    takes = "k3d image import"
    homepage = "https://k3d.io"
    label = "k3d.cluster"
    name_flag = "--cluster"
    makes = "k3d cluster create"

    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        del environ
        path, rest = find(_K3D, arguments)
        if path[-1] is not _IMPORT:
            return HandOver()
        args = parse(path, rest)
        if args.last("help", default=False):
            return Help(_HELP)
        if not args.words:
            raise UsageError(
                "requires at least 1 arg(s), only received 0", hint="k3d image import --help"
            )
        if (mode := args.last("mode", _MODES[-1])) not in _MODES:
            raise UsageError(f"Unknown image loading mode '{mode}'", hint="leave --mode out")
        words = tuple(dict.fromkeys(args.words))
        piped = words == ("-",)
        files = tuple(word for word in words if Path(word).is_file() and not piped)
        return Request(
            clusters=tuple(dict.fromkeys(args.flags.get("cluster", (_DEFAULT_NAME,)))),
            images=tuple(word for word in words if word not in files and not piped),
            archives=files,
            piped=piped,
            verbosity=int(any(args.last(flag, default=False) for flag in ("verbose", "trace"))),
        )

    def story(self, request: Request) -> Reporter:
        del request
        return K3dStory()


class K3dStory(Reporter):
    """k3d's own messages."""

    def tell(self, event: Event) -> Iterator[str]:
        if isinstance(event, SendingStarted):
            names = " ".join(event.references)
            yield f"Importing images '[{names}]' into node '{event.node}'..."

    def conclude(self, report: Report) -> Iterator[str]:
        yield f"Successfully imported {len(report.images)} image(s)"
