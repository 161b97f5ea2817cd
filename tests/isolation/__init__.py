"""Hide the user's own engines, clusters and settings from the tests."""

import os
import tempfile
from pathlib import Path

from tests.isolation import sitecustomize

_VARIABLES = (
    *("BUILDKIT", "BUILDX", "COLIMA", "CONTAINER", "DOCKER", "K3D", "KIND", "KUBE", "MINIKUBE"),
    *("PODMAN", "REGISTRY_AUTH_FILE", "SKAFFOLD", "STORAGE_", "TMPDIR", "XDG"),
)


def hide_settings(home: Path) -> None:
    """Replace the home, and remove the variables that select engines and clusters.

    Args:
        home: an empty folder, which this process and those that it starts use as their home.

    """
    tempfile.gettempdir()  # this process still puts its files where TMPDIR says
    for name in [name for name in os.environ if name.startswith(_VARIABLES)]:
        del os.environ[name]
    os.environ.pop("CI", None)
    os.environ["HOME"] = str(home)


def hide_engines(home: Path) -> None:
    """Have imgload find no engine, in this process and in those that it starts.

    Args:
        home: a folder without sockets.

    """
    os.environ["DOCKER_HOST"] = f"unix://{home}/none/docker.sock"
    os.environ["CONTAINER_HOST"] = f"unix://{home}/none/podman.sock"
    paths = (str(Path(sitecustomize.__file__).parent), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
