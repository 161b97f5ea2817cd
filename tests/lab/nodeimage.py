"""The node image: busybox, containerd, pigz and little else, from Debian packages.

containerd decompresses with unpigz, as on kind's nodes.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.lab import suites
from tests.lab.engine import RECIPE, Engine
from tests.lab.machine import Paths
from tests.lab.shell import run, step, write

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OMITTED = (
    "usr/share",
    "usr/lib/cni",
    "usr/lib/containerd",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/bin/containerd-shim",
    "usr/bin/containerd-shim-runc-v1",
)
"""Parts of the packages that no node uses; without them, the engines import the image faster."""
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_OMITTED_FOR_CRIO = (
    *("usr/share", "usr/lib/cni", "usr/bin/perl", "usr/bin/gpg", "usr/libexec/podman/quadlet"),
    *(f"{_LIBRARIES}/{name}" for name in ("gconv", "perl", "perl-base")),
)
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "lib/modules", "var/log", "usr/local/bin")

_ENTRYPOINT = """\
#!/bin/sh
trap 'kill $containerd; exit 0' TERM INT
mkdir -p /var/log /var/lib /var/tmp
[ -e /var/run ] || ln -s /run /var/run
for path in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
    mount -o remount,rw,bind "$path" "$path" 2>/dev/null
done
while :; do
    containerd >>/var/log/containerd.log 2>&1 &
    containerd=$!
    wait $containerd
    sleep 0.2
done
"""
_FUSE = """\
[proxy_plugins."fuse-overlayfs"]
  type = "snapshot"
  address = "/run/containerd-fuse-overlayfs.sock"
"""
_CONFIG_2 = f"""\
version = 2

{_FUSE}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  discard_unpacked_layers = true
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"""
_CONFIG_3 = f"""\
version = 3

{_FUSE}
[plugins."io.containerd.cri.v1.images"]
  discard_unpacked_layers = true
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
CRIO = {f"crio-{version}": version for version in suites.versions("crio-node")}
"""The versions of nodes for CRI-O, which have Podman and no containerd, with Podman's version."""
_CRIO_FILES = {
    "etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "etc/containers/registries.conf": 'unqualified-search-registries = ["docker.io"]\n',
    "etc/containers/storage.conf": """\
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
[storage.options.overlay]
mountopt = "nodev"
""",
    "usr/local/bin/entrypoint": """\
#!/bin/sh
trap 'exit 0' TERM INT
mkdir -p /var/log /var/lib /var/tmp
[ -e /var/run ] || ln -s /run /var/run
while :; do sleep 1000 & wait $!; done
""",
}
DOCKER = {"docker-20.10": ("docker20", "20.10"), "docker-newest": ("docker", suites.NEWEST)}
"""The versions of nodes that also have Docker, with its program and version in `suites`."""
CONFIGS = {
    "1.6": _CONFIG_2,
    "1.7": _CONFIG_2,
    suites.NEWEST: _CONFIG_3,
    "docker-20.10": _CONFIG_2,
    "docker-newest": _CONFIG_3,
}
"""The part of kind's containerd configuration that concerns images.

It also lets pods run on machines that do not permit a lower oom_score_adj.
"""


def real() -> str | None:
    """Return the real kind node image that replaces the lab's, if one is set."""
    return os.environ.get("IMGLOAD_LAB_NODE_IMAGE")


def tag(version: str) -> str:
    """Return the name of the node image with a version of containerd."""
    return real() or f"imgload-lab/node:{version}"


def ensure(engine: Engine, version: str) -> None:
    """Import the node image into the engine unless it exists."""
    recipe = _recipe(version)
    if real() or engine.image_label(tag(version), RECIPE) == recipe:
        return
    source = archive(engine.paths, version)
    with step(f"{engine.name}: node image {version} imported"):
        changes = [
            'ENTRYPOINT ["/usr/local/bin/entrypoint"]',
            f"ENV PATH={_PATH}",
            "ENV container=docker",
            f"LABEL {RECIPE}={recipe}",
        ]
        engine.cli("import", *(f"--change={change}" for change in changes), source, tag(version))


def archive(paths: Paths, version: str) -> Path:
    """Return the tar of the node's root file system; create it once."""
    target = paths.cache / f"node-{version}-{_recipe(version)}.tar"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=paths.cache) as folder:
            root = Path(folder) / "root"
            _fill(root, version, paths.cache)
            partial = Path(folder) / target.name
            with step(f"node image {version} made"):
                run("tar", "-C", root, "-cf", partial, ".")
            partial.rename(target)
    return target


def _recipe(version: str) -> str:
    if version in CRIO:
        parts = (*_CRIO_FILES.values(), *suites.packages("crio-node"), *_OMITTED_FOR_CRIO)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    docker = suites.packages(DOCKER[version][0]) if version in DOCKER else ()
    parts = (_ENTRYPOINT, CONFIGS[version], *suites.packages("node"), *docker, *_OMITTED)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _fill(root: Path, version: str, cache: Path) -> None:
    if version in CRIO:
        _fill_for_crio(root, CRIO[version], cache)
        return
    suites.unpack(cache, root, "node", "base")
    if version in DOCKER:
        suites.unpack(cache, root, "builder", "base")  # the libraries of dockerd
        suites.unpack(cache, root, *DOCKER[version])
    else:
        suites.unpack(cache, root, "containerd", version)
    finish_root(root, _FOLDERS, _OMITTED)
    write(root / "etc/containerd/config.toml", CONFIGS[version])
    write(root / "usr/local/bin/entrypoint", _ENTRYPOINT, 0o755)


def _fill_for_crio(root: Path, version: str, cache: Path) -> None:
    """Fill the root with Podman, and merge /usr, as newer suites have done."""
    suites.unpack_closed(cache, root, "crio-node", version)
    for folder in ("bin", "sbin", "lib", "lib64"):
        if (root / folder).is_dir():
            run("cp", "-a", f"{root / folder}/.", root / "usr" / folder)
            run("rm", "-rf", root / folder)
        (root / folder).symlink_to(f"usr/{folder}")
    finish_root(root, _FOLDERS, _OMITTED_FOR_CRIO)
    for path, text in _CRIO_FILES.items():
        write(root / path, text, 0o755 if path.startswith("usr/") else 0o644)


def finish_root(root: Path, folders: Iterable[str], omitted: Iterable[str]) -> None:
    """Make folders, remove parts of packages, and link the programs of busybox that are absent."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    run("rm", "-rf", *(root / path for path in omitted))
    for name in run(root / "bin/busybox", "--list").split():
        if not (root / "bin" / name).exists():
            (root / "bin" / name).symlink_to("busybox")
    write(root / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
