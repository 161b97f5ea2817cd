"""A replacement of crictl for the lab's nodes, whose images do not include the real program.

On the node, `crictl` is a shell script that passes its arguments to a process of the lab. That
process calls the node's CRI and returns the output that the real crictl prints.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tests.lab.cri import Cri, CriError
from tests.lab.daemon import Daemon

PORT = 10010
SCRIPT = f"""\
#!/bin/sh
reply=$(printf '%s\\0' $# "$@" | nc 127.0.0.1 {PORT}) || exit 1
eval "$reply"
exit 1
"""
WARNINGS = "etc/crictl-warnings"
"""A file on the node, which crictl writes to stderr before anything else."""
DEPRECATION = (
    'time="2026-11-30T00:00:00Z" level=warning msg="DEPRECATION: The support for cgroup v1 is'
    " deprecated since containerd v2.2 and will be removed by no later than May 2029. Upgrade the"
    ' host to use cgroup v2."\n'
)
"""A warning of containerd 2.2 and later."""
_REPOSITORY = Path(__file__).parents[2]


def bridge(node: str, pid: int, folder: Path) -> Daemon:
    """Return the process that serves crictl on a node, and ends with the node."""
    enter = ("nsenter", f"--net=/proc/{pid}/ns/net", "--")
    server = (sys.executable, "-m", "tests.lab.crictl_server", str(pid))
    log = folder / "crictl" / f"{node}.log"

    def listening() -> bool:
        return log.exists() and b"listening" in log.read_bytes()

    return Daemon(node, (*enter, *server), log.parent, listening, cwd=_REPOSITORY)


class _CrictlError(Exception):
    """An error that crictl logs before it exits with status 1."""

    def __init__(self, message: str, level: str = "error") -> None:
        self.message, self.level = message, level


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _CrictlError(message, "fatal")


def answer(root: Path, argv: list[str]) -> tuple[str, str, int]:
    """Return stdout, stderr and exit status of `crictl ARGV` on the node with this root folder."""
    lines: list[str] = []
    warnings = root / WARNINGS
    stderr, status = warnings.read_text() if warnings.exists() else "", 0
    try:
        options = _parser().parse_args(argv)
        command: Callable[..., None] = options.command
        command(_connected(root, options), options, lines.append)
    except (_CrictlError, CriError) as error:
        stderr, status = stderr + _logged(error), 1
    return "".join(f"{line}\n" for line in lines), stderr, status


def _connected(root: Path, options: argparse.Namespace) -> Cri:
    """Return the CRI at the endpoints in the command line, in /etc/crictl.yaml, or the default."""
    settings = root / "etc/crictl.yaml"
    text = settings.read_text() if settings.exists() else ""
    configured = dict(re.findall(r"^(runtime|image)-endpoint: *(\S+)", text, re.MULTILINE))
    sockets = []
    for given, kind in (options.runtime_endpoint, "runtime"), (options.image_endpoint, "image"):
        endpoint = given or configured.get(kind)
        cri = Cri(root / endpoint.removeprefix("unix:///")) if endpoint else Cri.under(root)
        if not cri.socket.exists():
            raise _CrictlError(_no_connection(kind, endpoint or "unix:///run"), "fatal")
        sockets.append(cri)
    return sockets[0]


def _no_connection(kind: str, endpoint: str) -> str:
    refused = f"dial unix {endpoint.removeprefix('unix://')}: connect: no such file or directory"
    return (
        f'validate service connection: validate CRI v1 {kind} API for endpoint "{endpoint}": rpc'
        f' error: code = Unavailable desc = connection error: desc = "transport: Error while'
        f' dialing: {refused}"'
    )


def _parser() -> _Parser:
    parser = _Parser(prog="crictl", add_help=False)
    for flags in ("-r", "--runtime-endpoint"), ("-i", "--image-endpoint"), ("-t", "--timeout"):
        parser.add_argument(*flags)
    commands = parser.add_subparsers(required=True, parser_class=_Parser)
    for names, command in _COMMANDS.items():
        sub = commands.add_parser(names[0], aliases=names[1:], add_help=False)
        sub.add_argument("-o", "--output", default="table")
        sub.add_argument("-q", "--quiet", action="store_true")
        sub.add_argument("-a", "--all", action="store_true")
        sub.add_argument("names", nargs="*")
        sub.set_defaults(command=command)
    return parser


def _logged(error: Exception) -> str:
    message = getattr(error, "message", str(error))
    quoted = json.dumps(message, ensure_ascii=False)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f'time="{now}" level={getattr(error, "level", "error")} msg={quoted}\n'


def _show(value: object) -> str:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
    return "".join(escapes.get(character, character) for character in text)


def _inspecti(cri: Cri, options: argparse.Namespace, print_line: Callable[[str], None]) -> None:
    for name in options.names:
        status = cri.image_status(name)
        if not status:
            raise _CrictlError(f'no such image "{name}" present')
        print_line(_show(status))


def _images(cri: Cri, options: argparse.Namespace, print_line: Callable[[str], None]) -> None:
    images = [image for image in cri.list_images() if _matches(image, options.names)]
    if options.quiet:
        for image in images:
            print_line(image["id"])
    elif options.output == "json":
        print_line(json.dumps({"images": images}, indent=2))
    else:
        _table(images, print_line)


def _matches(image: dict[str, Any], names: list[str]) -> bool:
    known = [image["id"], *image["repoTags"], *image["repoDigests"]]
    return not names or any(name in known for name in names)


def _table(images: list[dict[str, Any]], print_line: Callable[[str], None]) -> None:
    print_line(f"{'IMAGE':<40}{'TAG':<20}{'IMAGE ID':<20}SIZE")
    for image in images:
        for tag in image["repoTags"] or ["<none>:<none>"]:
            repository, _, version = tag.rpartition(":")
            short = image["id"].removeprefix("sha256:")[:13]
            print_line(f"{repository:<40}{version:<20}{short:<20}{image['size']}B")


def _info(cri: Cri, _options: argparse.Namespace, print_line: Callable[[str], None]) -> None:
    print_line(_show(cri.runtime_status()))


def _rmi(cri: Cri, options: argparse.Namespace, print_line: Callable[[str], None]) -> None:
    for name in options.names:
        status = cri.image_status(name)
        if not status:
            raise _CrictlError(f"no such image {name}")
        cri.remove_image(name)
        for tag in status["status"]["repoTags"] or [status["status"]["id"]]:
            print_line(f"Deleted: {tag}")


def _pull(cri: Cri, options: argparse.Namespace, print_line: Callable[[str], None]) -> None:
    for name in options.names:
        try:
            print_line(f"Image is up to date for {cri.pull_image(name)}")
        except CriError as error:
            raise _CrictlError(f"pulling image: {error}", "fatal") from error


def _ps(cri: Cri, options: argparse.Namespace, print_line: Callable[[str], None]) -> None:
    if options.output != "json":
        raise _CrictlError("only -o json here", "fatal")
    containers = [c for c in cri.list_containers() if options.all or c["state"].endswith("RUNNING")]
    print_line(json.dumps({"containers": containers}, indent=2))


_COMMANDS: dict[tuple[str, ...], Callable[..., None]] = {
    ("inspecti",): _inspecti,
    ("images", "image", "img"): _images,
    ("info",): _info,
    ("ps",): _ps,
    ("pull",): _pull,
    ("rmi",): _rmi,
}
