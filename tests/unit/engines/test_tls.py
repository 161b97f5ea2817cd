"""Which TLS files are taken, as the docker CLI takes them."""

import ssl
from pathlib import Path

import pytest

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.candidates import candidates, tls_of
from imgload.engines.endpoint import Tls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "verify"),
    [
        ({"DOCKER_TLS_VERIFY": "1"}, True),
        ({"DOCKER_TLS_VERIFY": "0"}, True),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_TLS": "1"}, True),
        ({"DOCKER_TLS": "1"}, False),
    ],
)
def test_tls_of_accepts_any_value_of_the_variables(
    folder: Path, variables: dict[str, str], *, verify: bool
) -> None:
    """As with the docker CLI, even 0; and verified or not."""
    for name in ("DOCKER_CERT_PATH", "DOCKER_CONFIG"):
        tls = tls_of({**variables, name: str(folder)})
        assert tls == Tls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", verify)


@pytest.mark.parametrize("variables", [{}, {"DOCKER_TLS_VERIFY": ""}, {"DOCKER_CERT_PATH": "/x"}])
def test_tls_of_returns_none_without_a_variable(variables: dict[str, str]) -> None:
    """The folder alone says nothing."""
    assert tls_of(variables) is None


def test_tls_in_folder_omits_missing_files(folder: Path) -> None:
    """The daemon may ask for no certificate of ours."""
    (folder / "cert.pem").unlink()
    assert Tls.in_folder(folder, verify=True) == Tls(folder / "ca.pem", None, folder / "key.pem")
    assert tls_of({"DOCKER_TLS": "1", "HOME": "/nonexistent"}) == Tls(verify=False)


@pytest.mark.parametrize("content", ["", "ca.pem", "-----BEGIN CERTIFICATE-----\nxx\n"])
def test_tls_context_names_invalid_files(folder: Path, content: str) -> None:
    """With what to look for."""
    (folder / "ca.pem").write_text(content)
    with pytest.raises(EngineUnreachable, match=r"ca\.pem") as caught:
        Tls.in_folder(folder, verify=True).context()
    assert "PEM" in caught.value.hint


def test_tls_context_verifies_by_default() -> None:
    """And what Go does not demand of certificates is not demanded."""
    assert Tls().context().verify_mode == ssl.CERT_REQUIRED
    assert Tls().context().check_hostname
    assert not Tls().context().verify_flags & ssl.VERIFY_X509_STRICT
    assert Tls(verify=False).context().verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "spoken"), [("tcp://h:2376", True), ("unix:///x", False), ("ssh://h", False)]
)
def test_candidates_have_tls_for_tcp_only(folder: Path, url: str, spoken: bool) -> None:  # noqa: FBT001
    """The variables may be set for another address."""
    variables = {"DOCKER_HOST": url, "CONTAINER_HOST": "unix:///x", "DOCKER_TLS_VERIFY": "1"}
    first = next(candidates({**variables, "DOCKER_CERT_PATH": str(folder)}))
    assert bool(first.tls) is spoken
