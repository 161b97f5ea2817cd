"""The commands that make an engine answer."""

from __future__ import annotations

import re
import sys

from imgload.engines.endpoint import EngineKind

_PRODUCTS = (
    (r"/\.colima/(default|\*)/", "colima start"),
    (r"/\.colima/(?P<name>[\w-]+)/", "colima start {name}"),
    (r"/\.orbstack/", "orb start"),
    (r"/\.rd/", "rdctl start"),
    (r"/\.docker/(desktop|run)/", "docker desktop start"),
    (r"podman/machine/|-api\.sock$", "podman machine start"),
    (r"^unix:///run/user/\d+/docker\.sock$", "systemctl --user start docker"),
    (r"^unix:///run/user/\d+/podman/podman\.sock$", "systemctl --user start podman.socket"),
    (r"^unix:///run/podman/", "sudo systemctl start podman.socket"),
    (r"^unix://(/var)?/run/docker\.sock$", "sudo systemctl start docker"),
)
"""What to run for a socket at such a path."""
_HERE = {
    "linux": "sudo systemctl start docker, or systemctl --user start podman.socket",
    "darwin": "docker desktop start, colima start, or podman machine start",
}


def start(url: str) -> str:
    """Return the command that starts the engine at an address."""
    for pattern, command in _PRODUCTS:
        if found := re.search(pattern, url):
            return command.format(**found.groupdict())
    return f"start the engine that listens at {url}"


def health(kind: EngineKind) -> str:
    """Return what shows whether an engine that answers is well."""
    return f"see whether it is well with: {kind} info"


def start_any() -> str:
    """Return the commands that start an engine on a machine like this."""
    return _HERE.get(sys.platform, "start Docker or Podman")


def permit(kind: EngineKind) -> str:
    """Return what lets a user open an engine's socket."""
    if kind == "podman":
        return (
            "start a Podman of your own (systemctl --user start podman.socket),"
            " or run as a user who may open this one"
        )
    return (
        "join the socket's group (sudo usermod -aG docker $USER, then log in again)"
        " or run as a user who may open it"
    )
