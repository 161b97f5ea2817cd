"""TLS settings for an engine: certificate authorities and the client's certificate."""

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
    """The files for a TLS connection.

    Args:
        ca: certificate authorities for the engine's certificate; None for the system's.
        cert: the client's certificate; None for no client authentication.
        key: the key of `cert`.
        verify: whether to verify the engine's certificate.

    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    @classmethod
    def in_folder(cls, folder: Path, *, verify: bool) -> Tls:
        """Return the settings with those of Docker's three files that exist in a folder."""
        paths = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        ca, cert, key = (path if path.exists() else None for path in paths)
        return cls(ca, cert, key, verify)

    def context(self) -> ssl.SSLContext:
        """Read the files; EngineUnreachable if one cannot be used.

        Python from 3.13 on has stricter requirements for certificates than Go. They are turned
        off: Docker's own instructions create certificates that violate them.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert and self.key:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise EngineUnreachable(
                f"the TLS files cannot be used ({files}): {error}",
                hint="check that they are readable PEM files that belong together",
            ) from error
        context.verify_flags &= ~_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def tls_of(environ: Mapping[str, str]) -> Tls | None:
    """Return the TLS settings of the docker CLI's variables, or None.

    A ``DOCKER_TLS_VERIFY`` (verified) or ``DOCKER_TLS`` (unverified) that is not empty turns TLS
    on; ``DOCKER_CERT_PATH`` names the folder (docker/cli, cli/flags/options.go).
    """
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    named = environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG")
    folder = Path(named) if named else home_folder(environ) / ".docker"
    return Tls.in_folder(folder, verify=verify)
