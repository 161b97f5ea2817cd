"""Recorded output of the real ctr, crictl and containerd 1.6, 1.7 and 2.1, and of Docker.

The documents of ``docker info`` are without the machine's properties and the features of runc.
"""

import json
from pathlib import Path
from typing import Any

from imgload.clusters.nodes.batch import Output

VERSIONS = ("1.6", "1.7", "2.1")
MYAPP = "docker.io/library/myapp:v1"
_FOLDER = Path(__file__).parent.parent / "recordings"
_FILES = {
    "config": "containerd_config_dump.stdout",
    "version": "ctr_version.stdout",
    "images": "ctr_-n_k8s.io_images_ls.stdout",
    "content": "ctr_-n_k8s.io_content_ls.stdout",
    "snapshots": "ctr_-n_k8s.io_snapshots_ls.stdout",
    "inspect": "crictl_inspecti_docker.io_library_myapp_v1.stdout",
    "absent": "crictl_inspecti_docker.io_library_absent_v9.stderr",
}

DOCKER_VERSIONS = ("20.10", "28.5")
_DOCKER_FILES = {
    "info": "docker_info.stdout",
    "info-down": "docker_info_down.stdout",
    "info-containerd-store": "docker_info_containerd_store.stdout",
    "images": "docker_image_inspect.stdout",
    "images-down": "docker_image_ls_down.stdout",
    "used": "docker_container_inspect.stdout",
    "sizes": "grep_layerdb.stdout",
    "times": "stat_imagedb.stdout",
    "labels": "grep_loaded.stdout",
    "load-deep": "docker_load_deep.stdout",
}


def recorded(version: str, name: str) -> bytes:
    """Return the output of a command on a containerd version."""
    return (_FOLDER / f"containerd-{version}" / _FILES[name]).read_bytes()


def inspected(version: str = "2.1") -> Any:
    """Return crictl's answer about the recorded image."""
    return json.loads(recorded(version, "inspect"))


def recorded_docker(version: str, name: str) -> Output:
    """Return the output of a command on a node with this version of Docker."""
    return Output(0, (_FOLDER / f"docker-{version}" / _DOCKER_FILES[name]).read_bytes())
