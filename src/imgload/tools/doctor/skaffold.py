"""What Skaffold would do: which engine it builds with, and how images get to the nodes.

For the kube context of a kind or k3d cluster it calls these programs to load.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping

from imgload.clusters.kubeconfig import current_context
from imgload.engines.discovery.discover import Discovery
from imgload.tools.doctor.finding import Finding
from imgload.tools.dropins.install import find_real, is_ours, on_path
from imgload.tools.skaffold.docker_client import Client

_LOADERS = {"kind-": "kind", "k3d-": "k3d"}


def check_skaffold(found: Discovery, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield how Skaffold gets to an engine and to the nodes; one line where it is not installed."""
    variables = os.environ if environ is None else environ
    yield from _drop_ins()
    if not shutil.which("skaffold"):
        yield Finding("skaffold", "info", "skaffold is not on PATH")
        return
    yield _engine(found)
    if not shutil.which("imgload"):
        what = "imgload is not on PATH, where Skaffold looks for the builder `imgload skaffold`"
        yield Finding("skaffold", "warning", what, "pipx install imgload; or name it by its path")
    yield from _loader(current_context(variables) or "")


def _engine(found: Discovery) -> Finding:
    client = Client.of(found)
    if endpoint := client.endpoint:
        kind = f" (Podman's Docker API, by {client.origin})" if endpoint.kind == "podman" else ""
        return Finding("skaffold", "ok", f"Skaffold builds with {endpoint}{kind}")
    what = f"Skaffold builds with {client.url} ({client.origin}), where no engine answers"
    if others := found.endpoints:
        return Finding(
            "skaffold", "warning", what, f"export DOCKER_HOST={shlex.quote(others[0].url)}"
        )
    return Finding("skaffold", "warning", what)


def _loader(context: str) -> Iterator[Finding]:
    name = next((tool for prefix, tool in _LOADERS.items() if context.startswith(prefix)), None)
    if name and not any(True for _ in on_path(name)):
        what = f"{name} is not on PATH, which Skaffold loads images into {context} with"
        yield Finding("skaffold", "warning", what, f"imgload {name} --install ~/.local/bin")


def _drop_ins() -> Iterator[Finding]:
    """Yield, for each loader that is on PATH, whose program is called by its name."""
    for name in _LOADERS.values():
        programs = list(on_path(name))
        ours = [path for path in programs if is_ours(path)]
        if not ours:
            continue
        if programs[0] == ours[0]:
            real = find_real(name)
            rest = f"hands the rest to {real}" if real else f"finds no {name} for the rest"
            yield Finding("skaffold", "ok", f"`{name}` is imgload's ({ours[0]}), and {rest}")
        else:
            what = f"`{name}` is {programs[0]}; imgload's, {ours[0]}, comes after it on PATH"
            first = f"put it first: export PATH={shlex.quote(str(ours[0].parent))}:$PATH"
            yield Finding("skaffold", "warning", what, first)
