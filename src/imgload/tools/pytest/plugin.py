"""The pytest plugin: the entry point ``imgload`` of the group ``pytest11``.

pytest imports it in every session, so it imports the rest of imgload when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from typing import Unpack

    from imgload.loader.loader import Loader
    from imgload.loader.prepare import LoadOptions


class LoadImage(Protocol):
    """The type of the fixture `load_image`."""

    def __call__(self, name: str, **options: Unpack[LoadOptions]) -> str:
        """Load an image onto every node, and return the name that pods use.

        Args:
            name: name or image ID of a local image.
            options: options of `imgload.Loader.load`.

        Raises:
            ImageError: if the image does not exist, or is ambiguous.
            LoadFailed: if the image is not verified on a node.

        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--imgload-cluster`` and the setting ``imgload_cluster``."""
    text = "cluster that imgload loads into [default: the kube context's, or the only one]"
    parser.getgroup("imgload").addoption("--imgload-cluster", metavar="NAME", help=text)
    parser.addini("imgload_cluster", text)


@pytest.fixture(scope="session")
def imgload_cluster(pytestconfig: pytest.Config) -> str | None:
    """Return the name of the cluster; override this fixture to create a cluster."""
    name = pytestconfig.getoption("imgload_cluster") or pytestconfig.getini("imgload_cluster")
    return str(name) if name else None


@pytest.fixture(scope="session")
def imgload_loader(imgload_cluster: str | None) -> Iterator[Loader]:
    """Return a loader for the cluster, which keeps its connections during the session."""
    from imgload.loader.loader import Loader  # noqa: PLC0415 - only if a test uses it

    with Loader.connect(imgload_cluster) as loader:
        yield loader


@pytest.fixture(scope="session")
def load_image(imgload_loader: Loader) -> LoadImage:
    """Return a function that loads an image and returns the name that pods use."""

    def load(name: str, **options: Unpack[LoadOptions]) -> str:
        return imgload_loader.load(name, **options).images[0].reference

    return load
