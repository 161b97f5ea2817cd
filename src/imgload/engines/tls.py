"""TLS to an engine: whom it trusts, and who we are."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import attrs

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.config_files import home_folder

_STRICT = getattr(ssl, "VERIFY_X509_STRICT", ssl.VERIFY_DEFAULT)


@attrs.frozen
class Tls:
    """The files that a TLS connection takes.

    Args:
        ca: who signed the engine's certificate; None for the system's authorities.
        cert: our own certificate; None for none.
        key: its key.
        verify: whether the engine's certificate is looked at.

    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    @classmethod
    def in_folder(cls, folder: Path, *, verify: bool) -> Tls:
        """Return what is there of the three files that Docker keeps together."""
        ca, cert, key = (
            path if path.exists() else None
            for path in (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        )
        return cls(ca, cert, key, verify)

    def context(self) -> ssl.SSLContext:
        """Read the files.

        What Python demands of certificates from 3.13 on, beyond what Go does, is not demanded:
        Docker's own instructions make certificates without it.

        Raises:
            EngineUnreachable: when a file cannot be used.

        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert and self.key:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise EngineUnreachable(
                f"the TLS files cannot be used ({files}): {error}",
                hint="see whether they are PEM files that belong together, and readable",
            ) from error
        context.verify_flags &= ~_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def tls_of(environ: Mapping[str, str]) -> Tls | None:
    """Return what the docker CLI's variables say of TLS, or None.

    ``DOCKER_TLS_VERIFY`` (verified) and ``DOCKER_TLS`` (not) ask for it when they are not empty;
    ``DOCKER_CERT_PATH`` names the folder (docker/cli, cli/flags/options.go).
    """
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    return Tls.in_folder(_folder(environ), verify=verify)


def _folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG")
    return Path(named) if named else home_folder(environ) / ".docker"
