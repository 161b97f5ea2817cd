"""docker-buildx, and builders with its docker-container driver.

Debian has no buildkitd. dockerd contains BuildKit with all of its exporters, and serves it after an
HTTP upgrade, as buildx's docker driver uses it. A builder's container therefore runs dockerd, and
its `buildctl` connects to that.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from tests.lab import suites
from tests.lab.engine import RECIPE, Engine
from tests.lab.machine import Paths
from tests.lab.nodeimage import finish_root
from tests.lab.shell import run, step, write

TAG = "imgload-lab/builder:1"
_PATH = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OMITTED = (
    *("usr/share", "usr/lib/x86_64-linux-gnu/gconv", "usr/libexec", "usr/sbin/docker-proxy"),
    *("usr/bin/ctr", "usr/bin/containerd-shim"),
)
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "var/lib/buildkit", "etc/docker")
_BUILDKITD = """\
#!/bin/sh
# buildx passes flags of buildkitd
[ "$1" != --version ] || exec echo buildkitd github.com/moby/buildkit v0.25.0 lab
exec dockerd --host unix:///run/docker.sock --data-root /var/lib/buildkit --bridge none \\
    --userland-proxy=false --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false
"""
_BUILDCTL = """\
#!/bin/sh
export DOCKER_HOST=unix:///run/docker.sock
[ "$1" = dial-stdio ] || exec docker version
upgraded=$(mktemp -u)
mkfifo "$upgraded"
{
    printf '%s\\r\\n' 'POST /grpc HTTP/1.1' 'Host: lab' 'Connection: Upgrade' 'Upgrade: h2c' ''
    read -r _ <"$upgraded" # dockerd drops what it receives before its answer
    exec cat
} | docker system dial-stdio | {
    while read -r line && [ "${#line}" -gt 1 ]; do :; done
    echo >"$upgraded"
    rm "$upgraded"
    exec cat
}
"""


@attrs.frozen
class Buildx:
    """A user of docker-buildx, with a configuration folder of its own."""

    engine: Engine
    folder: Path

    @classmethod
    def set_up(cls, engine: Engine, folder: Path, version: str = suites.NEWEST) -> "Buildx":
        """Install the plugin in the configuration folder `folder`."""
        program = "usr/libexec/docker/cli-plugins/docker-buildx"
        plugins = folder / "cli-plugins"
        plugins.mkdir(parents=True)
        tree = suites.tree(engine.paths.cache, "buildx", version)
        (plugins / "docker-buildx").symlink_to(tree / program)
        return cls(engine, folder)

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables with which Docker's client uses this plugin and this engine."""
        host = {"DOCKER_HOST": self.engine.url, "DOCKER_BUILDKIT": "1"}
        return {**host, "DOCKER_CONFIG": str(self.folder), "BUILDX_CONFIG": ""}

    def __call__(self, *args: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Return the output of `docker buildx`."""
        return run("docker", "buildx", *args, env={**self.environ, **(env or {})})

    @contextlib.contextmanager
    def builder(self, name: str, *options: str) -> Iterator[str]:
        """Create a docker-container builder, and select it; remove it at the end."""
        _ensure(self.engine)
        image = f"--driver-opt=image={TAG}"
        driver = ("--driver=docker-container", image, *options)
        try:
            self("create", "--name", name, "--use", "--bootstrap", *driver)
            yield name
        finally:
            self("rm", "--force", name)


def _ensure(engine: Engine) -> None:
    if engine.image_label(TAG, RECIPE) != _recipe():
        archive = _archive(engine.paths)
        with step(f"{engine.name}: image of builders loaded"):
            engine.cli("load", "--input", archive)


def _archive(paths: Paths) -> Path:
    """Return a docker-archive: engines load an uncompressed layer faster than they import a tar."""
    target = paths.cache / f"builder-{_recipe()}.tar"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=paths.cache) as folder:
            image = Path(folder) / "image"
            image.mkdir()
            _fill(image / "root", paths.cache)
            run("tar", "-C", image / "root", "-cf", image / "layer.tar", ".")
            write(image / "config.json", json.dumps(_config(image / "layer.tar")))
            entry = {"Config": "config.json", "RepoTags": [TAG], "Layers": ["layer.tar"]}
            write(image / "manifest.json", json.dumps([entry]))
            partial = Path(folder) / target.name
            run("tar", "-C", image, "-cf", partial, "manifest.json", "config.json", "layer.tar")
            partial.rename(target)
    return target


def _config(layer: Path) -> dict[str, object]:
    with layer.open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    labels = {RECIPE: _recipe()}
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["buildkitd"], "Env": [_PATH], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }


def _recipe() -> str:
    return hashlib.sha256("\n".join((_BUILDKITD, _BUILDCTL, *_OMITTED)).encode()).hexdigest()[:12]


def _fill(root: Path, cache: Path) -> None:
    suites.unpack(cache, root, "node", "base")
    suites.unpack(cache, root, "builder", "base")  # the libraries of dockerd
    suites.unpack(cache, root, "docker")
    finish_root(root, _FOLDERS, _OMITTED)
    write(root / "etc/docker/daemon.json", '{"features": {"containerd-snapshotter": true}}')
    write(root / "usr/local/bin/buildkitd", _BUILDKITD, 0o755)
    write(root / "usr/local/bin/buildctl", _BUILDCTL, 0o755)
