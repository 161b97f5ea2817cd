"""Engines behind proxies, such as docker-socket-proxy, HAProxy, nginx and Rancher Desktop."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import EngineFailed, ImgloadError
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.relay import Proxy, relay
from tests.lab import Lab

CLUSTERS = {"docker": "lab-d21", "podman": "lab-p21"}


@pytest.mark.parametrize("engine", CLUSTERS)
@pytest.mark.parametrize(
    "proxy", [Proxy(at_end="ignore"), Proxy(at_end="close"), Proxy(needs_input=True)]
)
def test_a_proxy_does_not_hinder_a_load(
    lab: Lab, images: Images, tmp_path: Path, engine: str, proxy: Proxy
) -> None:
    """Proxies that ignore the end of input hung a load for ten minutes (moby #38457)."""
    host, node, tag = lab.engine(engine), lab.cluster(CLUSTERS[engine]).nodes[0], unique()
    images.build(host, tag)
    variable = "DOCKER_HOST" if engine == "docker" else "CONTAINER_HOST"
    with relay(host, tmp_path, proxy=proxy) as between, pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, between.url)
        start = time.monotonic()
        imgload.load(tag, cluster=CLUSTERS[engine], source=between.url, transport="import")
        assert time.monotonic() - start < 10
    assert cri_id(node, f"docker.io/library/{tag}") == host.image_id(tag)
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize(
    ("refuse", "request_line"),
    [
        (r"/containers/.*/exec", "POST /v{version}/containers/{node}/exec"),
        (r"GET \S*/images/", "GET /v{version}/images/{tag}/json"),
    ],
)
def test_a_refused_request_is_named(
    lab: Lab, images: Images, tmp_path: Path, refuse: str, request_line: str
) -> None:
    """Its method and path, in one line without the proxy's page."""
    tag = unique()
    images.build(lab.docker, tag)
    proxy = Proxy(refuse=refuse)
    with relay(lab.docker, tmp_path, proxy=proxy) as between, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", between.url)
        with pytest.raises(ImgloadError) as caught:
            imgload.load(tag, cluster="lab-d21", source=between.url)
    errors: list[ImgloadError] = [caught.value]
    if isinstance(caught.value, imgload.LoadFailed):
        errors = [n.error for i in caught.value.report.images for n in i.nodes if n.error]
    node = lab.docker.cli("inspect", "--format", "{{.Id}}", "lab-d21-control-plane").strip()
    version = lab.docker.cli("version", "--format", "{{.Server.APIVersion}}").strip()
    expected = request_line.format(version=version, node=node, tag=tag)
    for error in errors:
        assert expected in error.message
        assert expected in error.hint
        assert "<" not in error.message


@pytest.mark.parametrize("path", [r"/history", r"GET \S*/info", "/distribution/"])
def test_a_refused_optional_request_is_no_error(
    lab: Lab, images: Images, tmp_path: Path, path: str
) -> None:
    """Sizes, the engine's own description, and a query to this process."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    proxy = Proxy(refuse=path)
    with relay(lab.docker, tmp_path, proxy=proxy) as between, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", between.url)
        load = imgload.load(tag, cluster="lab-d21", source=between.url, transport="delta")
    assert load.ok
    assert cri_id(node, f"docker.io/library/{tag}") == lab.docker.image_id(tag)
    forget(node, f"docker.io/library/{tag}")


def test_an_image_whose_lookup_is_refused_is_not_reported_as_missing(
    lab: Lab, tmp_path: Path
) -> None:
    with (
        relay(lab.docker, tmp_path, proxy=Proxy(refuse=r"/images/\S*/json")) as between,
        pytest.raises(EngineFailed) as caught,
    ):
        imgload.load(unique(), cluster="lab-d21", source=between.url)
    assert "/images/" in caught.value.request
