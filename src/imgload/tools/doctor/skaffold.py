"""Check which engine Skaffold builds with, and how it loads images.

For the kube context of a kind or k3d cluster Skaffold runs the program of that name to load.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator

from imgload.clusters.kubeconfig import current_context
from imgload.engines.discovery.discover import Discovery
from imgload.tools.doctor.finding import Finding
from imgload.tools.dropins.install import find_real, is_drop_in, on_path
from imgload.tools.skaffold.request import docker_client

_LOADERS = ("kind", "k3d")


def check_skaffold(discovery: Discovery) -> Iterator[Finding]:
    """Yield the drop-ins on PATH and, if Skaffold is installed, its engine, builder and loader."""
    for name in _LOADERS:
        yield from _drop_in(name)
    if not shutil.which("skaffold"):
        yield Finding("skaffold", "info", "skaffold is not on PATH")
        return
    yield _engine(discovery)
    if not shutil.which("imgload"):
        what = "imgload is not on PATH, where Skaffold looks for the builder `imgload skaffold`"
        hint = "pipx install imgload; or use its full path in skaffold.yaml"
        yield Finding("skaffold", "warning", what, hint)
    context = current_context() or ""
    for tool in _LOADERS:
        if context.startswith(f"{tool}-") and not any(True for _ in on_path(tool)):
            what = f"{tool} is not on PATH, and Skaffold needs it to load images into {context}"
            yield Finding("skaffold", "warning", what, f"imgload {tool} --install ~/.local/bin")


def _engine(discovery: Discovery) -> Finding:
    url, origin, endpoint = docker_client(discovery)
    if endpoint:
        kind = f" (Podman's Docker API, by {origin})" if endpoint.kind == "podman" else ""
        return Finding("skaffold", "ok", f"Skaffold builds with {endpoint}{kind}")
    what = f"Skaffold builds with {url} ({origin}), where no engine answers"
    urls = [endpoint.url for endpoint in discovery.endpoints]
    hint = f"export DOCKER_HOST={shlex.quote(urls[0])}" if urls else ""
    return Finding("skaffold", "warning", what, hint)


def _drop_in(name: str) -> Iterator[Finding]:
    """Yield whether imgload's drop-in, if it is installed, comes first on PATH."""
    programs = list(on_path(name))
    drop_in = next((path for path in programs if is_drop_in(path)), None)
    if drop_in is None:
        return
    if programs[0] == drop_in:
        real = find_real(name)
        rest = f"forwards other commands to {real}" if real else f"finds no {name} to forward to"
        yield Finding("skaffold", "ok", f"`{name}` is imgload's ({drop_in}), and {rest}")
    else:
        what = f"`{name}` is {programs[0]}; imgload's, {drop_in}, comes after it on PATH"
        first = f"put it first: export PATH={shlex.quote(str(drop_in.parent))}:$PATH"
        yield Finding("skaffold", "warning", what, first)
