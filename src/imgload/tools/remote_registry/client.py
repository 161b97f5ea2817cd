"""The OCI distribution API of a registry, as far as a push needs it."""

from __future__ import annotations

import http.client
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import attrs

from imgload.core.errors import RegistryError
from imgload.oci.digest import Digest
from imgload.oci.document import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    parse_json,
)
from imgload.oci.jsontext import load_json
from imgload.tools.remote_registry.url import RegistryUrl

_SECONDS = 60.0
_GZIP = b"\x1f\x8b"
_KINDS = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX)


@attrs.frozen
class Answer:
    """A response that was read to its end; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def digest(self) -> str:
        """What the registry says is the content's digest."""
        return self.headers.get("docker-content-digest", "")


@attrs.frozen
class RegistryClient:
    """A registry that asks for no login; its methods raise RegistryError."""

    url: RegistryUrl

    def check(self) -> None:
        """See that a registry answers (OCI distribution spec, end-1)."""
        answer = self.ask("GET", "/v2/")
        self.expect(answer, HTTPStatus.OK, "asking whether it is a registry")

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's bytes, or None where the repository lacks it (end-2)."""
        answer = self.ask("HEAD", f"/v2/{repository}/blobs/{digest}")
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        self.expect(answer, HTTPStatus.OK, f"asking for {digest}")
        length = answer.headers.get("content-length", "")
        return int(length) if re.fullmatch(r"[0-9]{1,15}", length) else 0

    def is_gzip(self, repository: str, digest: Digest) -> bool:
        """Whether a blob that is there begins as gzip does; not where it is kept elsewhere."""
        headers = {"Range": "bytes=0-1"}
        target = f"/v2/{repository}/blobs/{digest}"
        with self.translated("GET", target), closing(self.connection()) as connection:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            return response.status < HTTPStatus.MULTIPLE_CHOICES and response.read(2) == _GZIP

    def mount(self, repository: str, digest: Digest, origin: str) -> None:
        """Take a blob over from another repository (end-11)."""
        query = urlencode({"mount": str(digest), "from": origin})
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/?{query}")
        self.expect(answer, HTTPStatus.CREATED, f"mounting {digest} from {origin}")

    def put_manifest(self, repository: str, name: str, raw: bytes) -> None:
        """Put a manifest or index under a tag or its digest (end-7)."""
        headers = {"Content-Type": media_type(raw)}
        answer = self.ask("PUT", f"/v2/{repository}/manifests/{name}", raw, headers)
        self.expect(answer, HTTPStatus.CREATED, f"putting the manifest {name}")

    def manifest(self, repository: str, name: str) -> Answer:
        """Return a manifest or index (end-3)."""
        headers = {"Accept": ", ".join(_KINDS)}
        answer = self.ask("GET", f"/v2/{repository}/manifests/{name}", headers=headers)
        self.expect(answer, HTTPStatus.OK, f"reading the manifest {name}")
        return answer

    def upload(self, repository: str) -> Uploading:
        """Begin to upload a blob (end-4, end-5, end-6)."""
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        self.expect(answer, HTTPStatus.ACCEPTED, "beginning an upload")
        return Uploading(self, self.inside(answer))

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read the answer to its end, bounded."""
        with self.translated(method, target), closing(self.connection()) as connection:
            connection.request(method, target, body, dict(headers or {}))
            return read(connection)

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection that is not open yet."""
        plain = self.url.scheme == "http"
        kind = http.client.HTTPConnection if plain else http.client.HTTPSConnection
        return kind(self.url.host, timeout=_SECONDS)

    def expect(self, answer: Answer, status: HTTPStatus, doing: str) -> None:
        """Raise what the registry says where it answers anything else."""
        if answer.status == status:
            return
        hint = "log-ins are not supported: docker push does" if answer.status == 401 else ""  # noqa: PLR2004
        raise RegistryError(
            f"{self.url}: {doing}: status {answer.status} {_words(answer.body)}".strip(),
            hint=hint or "see the registry's log",
        )

    def inside(self, answer: Answer) -> str:
        """Return where to go on; never another host."""
        location = urlsplit(urljoin(f"{self.url}/v2/", answer.headers.get("location", "")))
        if location.netloc != self.url.host or not answer.headers.get("location"):
            raise RegistryError(
                f"{self.url} sends the upload on to {location.netloc or 'nowhere'!r}",
                hint="push to the registry itself, not to what stands before it",
            )
        return f"{location.path}?{location.query}" if location.query else location.path

    @contextmanager
    def translated(self, method: str, target: str) -> Iterator[None]:
        """Raise RegistryError in place of whatever a connection raises."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RegistryError(
                f"{self.url} does not answer ({method} {target.partition('?')[0]}): {why}",
                hint="see whether it runs, and has this address here:"
                f" curl {shlex.quote(f'{self.url}/v2/')}",
            ) from error


@attrs.define
class Uploading:
    """One blob on its way into a registry; what the receiver calls an upload."""

    _client: RegistryClient
    _location: str
    _connection: http.client.HTTPConnection | None = None
    size: int = 0

    def write(self, chunk: bytes) -> None:
        """Pass a piece on, as a chunk of one long request."""
        if not chunk:
            return
        with self._client.translated("PATCH", self._location):
            connection = self._connection or self._open()
            connection.send(b"%x\r\n" % len(chunk))
            connection.send(chunk)
            connection.send(b"\r\n")
        self.size += len(chunk)

    def _open(self) -> http.client.HTTPConnection:
        connection = self._connection = self._client.connection()
        connection.putrequest("PATCH", self._location)
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        return connection

    def finish(self, digest: Digest) -> None:
        """Have the registry compare the content with its digest, and keep it."""
        if self._connection:
            with self._client.translated("PATCH", self._location):
                self._connection.send(b"0\r\n\r\n")
                answer = read(self._connection)
            self.abandon()
            self._client.expect(answer, HTTPStatus.ACCEPTED, f"uploading {digest}")
            self._location = self._client.inside(answer)
        joint = "&" if "?" in self._location else "?"
        answer = self._client.ask("PUT", f"{self._location}{joint}digest={digest}")
        self._client.expect(answer, HTTPStatus.CREATED, f"uploading {digest}")

    def abandon(self) -> None:
        """Drop the connection; the registry forgets what came."""
        if self._connection:
            self._connection.close()
            self._connection = None


def read(connection: http.client.HTTPConnection) -> Answer:
    """Read an answer to its end.

    Raises:
        http.client.HTTPException: when it is longer than any manifest.

    """
    response = connection.getresponse()
    body = response.read(MAX_DOCUMENT + 1)
    if len(body) > MAX_DOCUMENT:
        raise http.client.HTTPException(f"an answer of more than {MAX_DOCUMENT} bytes")
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body)


def media_type(raw: bytes) -> str:
    """Return what a manifest is to be called; OCI's need not say it themselves."""
    document = parse_json(raw, "a manifest")
    said = document.get("mediaType")
    if said in _KINDS:
        return str(said)
    return INDEX if "manifests" in document else MANIFEST


def _words(body: bytes) -> str:
    """Return a registry's own words in one line (OCI distribution spec, "Error Codes")."""
    try:
        errors: Any = load_json(body)["errors"]
        text = "; ".join(f"{e['code']}: {e.get('message') or ''}".rstrip(": ") for e in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:300].decode(errors="replace")
    return " ".join(text.split())
