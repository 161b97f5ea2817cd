"""Which hosts a proxy is asked for, by Go's rules."""

from __future__ import annotations

import pytest

from imgload.tools.doctor.proxies import check_proxies, is_excepted

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("registry:5000", "registry"),
        ("registry:5000", "a, registry:5000 ,b"),
        ("registry.dev", ".dev"),
        ("registry.dev", "dev"),
        ("registry.dev", "*.dev"),
        ("10.1.2.3:5000", "10.0.0.0/8"),
        ("anything", "*"),
        ("localhost:5000", ""),
        ("127.0.0.1:5000", ""),
    ],
)
def test_what_is_asked_directly(host: str, no_proxy: str) -> None:
    """Names, subdomains, networks, all; and loopback in any case."""
    assert is_excepted(host, no_proxy)


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("registry:5000", ""),
        ("registry:5000", "other"),
        ("registry:5000", "registry:80"),
        ("notdev", "dev"),
        ("11.1.2.3", "10.0.0.0/8"),
        ("registry", "10.0.0.0/8, /, bad/net"),
    ],
)
def test_what_the_proxy_is_asked_for(host: str, no_proxy: str) -> None:
    """Whatever is not excepted."""
    assert not is_excepted(host, no_proxy)


@pytest.mark.parametrize(
    ("proxies", "status", "words"),
    [
        ({}, None, ""),
        ({"no_proxy": "x"}, None, ""),
        ({"http_proxy": PROXY}, "warning", "for what it pulls from registry:5000"),
        ({"https_proxy": PROXY, "no_proxy": "registry"}, "info", "pulls through a proxy"),
        ({"http_proxy": "http://127.0.0.1:3128"}, "warning", "there is the node itself"),
        ({"http_proxy": "localhost:3128"}, "warning", "there is the node itself"),
    ],
)
def test_what_a_proxy_means(proxies: dict[str, str], status: str | None, words: str) -> None:
    """Nothing without one; a warning where pulls from here fail."""
    found = list(check_proxies("n", proxies, ["registry:5000"]))
    assert [f.status for f in found] == ([status] if status else [])
    assert words in "".join(f.message for f in found)
