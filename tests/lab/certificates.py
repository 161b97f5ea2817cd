"""Certificates for an engine with TLS, created with openssl as in Docker's documentation."""

from pathlib import Path

from tests.lab.shell import run, write

_FILES = ("ca.pem", "cert.pem", "key.pem", "server-cert.pem", "server-key.pem")
_NAMES = "subjectAltName = DNS:localhost, IP:127.0.0.1\n"
_DAYS = "3650"


def make_certificates(folder: Path) -> None:
    """Create the certificates of an authority, a server and a client, unless they exist."""
    if all((folder / name).exists() for name in _FILES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 requires it
    words = ("-out", "ca.pem", "-subj", "/CN=lab", *usage)
    _openssl(folder, "req", "-x509", *_key("ca-key.pem"), *words)
    _sign(folder, "server-", f"{_NAMES}extendedKeyUsage = serverAuth\n")
    _sign(folder, "", "extendedKeyUsage = clientAuth\n")


def _key(name: str) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", name, "-days", _DAYS)


def _sign(folder: Path, prefix: str, extensions: str) -> None:
    request, certificate = f"{prefix}request.pem", f"{prefix}cert.pem"
    write(folder / f"{prefix}extensions", extensions)
    key = _key(f"{prefix}key.pem")[:-2]
    _openssl(folder, "req", "-new", *key, "-out", request, "-subj", f"/CN={prefix}lab")
    authority = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", _DAYS)
    files = ("-in", request, "-out", certificate, "-extfile", f"{prefix}extensions")
    _openssl(folder, "x509", "-req", *authority, *files)


def _openssl(folder: Path, *arguments: str) -> None:
    run("openssl", *arguments, cwd=folder)
