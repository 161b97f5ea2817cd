"""Recorded output of the real ctr, crictl and containerd 1.6, 1.7 and 2.1."""

import json
from pathlib import Path
from typing import Any

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


def recorded(version: str, name: str) -> bytes:
    """Return the output of a command on a containerd version."""
    return (_FOLDER / f"containerd-{version}" / _FILES[name]).read_bytes()


def inspected(version: str = "2.1") -> Any:
    """Return crictl's answer about the recorded image."""
    return json.loads(recorded(version, "inspect"))
