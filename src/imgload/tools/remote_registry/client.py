"""A client for the OCI distribution API, as far as a push needs it."""

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
    load_json,
    parse_json,
)
from imgload.tools.remote_registry.url import RegistryUrl

_TIMEOUT_SECONDS = 60.0
_GZIP = b"\x1f\x8b"
_MEDIA_TYPES = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX)


@attrs.frozen
class Response:
    """A response with its whole body; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class RegistryClient:
    """A registry without authentication; every method raises RegistryError on failure."""

    url: RegistryUrl

    def check(self) -> None:
        """Check that a registry answers (OCI distribution spec, end-1)."""
        self.request("GET", "/v2/", HTTPStatus.OK, "asking whether it is a registry")

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if the repository lacks it (end-2)."""
        response = self.send("HEAD", f"/v2/{repository}/blobs/{digest}")
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        self.expect(response, HTTPStatus.OK, f"asking for {digest}")
        length = response.headers.get("content-length", "")
        return int(length) if re.fullmatch(r"[0-9]{1,15}", length) else 0

    def is_gzip(self, repository: str, digest: Digest) -> bool:
        """Whether a blob starts like gzip; False if the registry redirects to another server."""
        target = f"/v2/{repository}/blobs/{digest}"
        with self.map_errors("GET", target), closing(self.connection()) as connection:
            connection.request("GET", target, headers={"Range": "bytes=0-1"})
            response = connection.getresponse()
            return response.status < HTTPStatus.MULTIPLE_CHOICES and response.read(2) == _GZIP

    def mount(self, repository: str, digest: Digest, origin: str) -> None:
        """Mount a blob from another repository (end-11)."""
        target = f"/v2/{repository}/blobs/uploads/?{urlencode({'mount': digest, 'from': origin})}"
        self.request("POST", target, HTTPStatus.CREATED, f"mounting {digest} from {origin}")

    def put_manifest(self, repository: str, name: str, raw: bytes) -> None:
        """Put a manifest or index under a tag or its digest (end-7)."""
        target = f"/v2/{repository}/manifests/{name}"
        response = self.send("PUT", target, raw, {"Content-Type": media_type(raw)})
        self.expect(response, HTTPStatus.CREATED, f"putting the manifest {name}")

    def manifest(self, repository: str, name: str) -> Response:
        """Return a manifest or index (end-3)."""
        headers = {"Accept": ", ".join(_MEDIA_TYPES)}
        response = self.send("GET", f"/v2/{repository}/manifests/{name}", headers=headers)
        return self.expect(response, HTTPStatus.OK, f"reading the manifest {name}")

    def upload(self, repository: str) -> BlobUpload:
        """Start the upload of a blob (end-4, end-5, end-6)."""
        target = f"/v2/{repository}/blobs/uploads/"
        response = self.request("POST", target, HTTPStatus.ACCEPTED, "beginning an upload")
        return BlobUpload(self, self.location(response))

    def request(self, method: str, target: str, status: HTTPStatus, action: str) -> Response:
        """Send a request without a body, and expect a status."""
        return self.expect(self.send(method, target), status, action)

    def send(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Response:
        """Send a request and read the whole response."""
        with self.map_errors(method, target), closing(self.connection()) as connection:
            connection.request(method, target, body, headers)
            return read_response(connection)

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection, not yet opened."""
        plain = self.url.scheme == "http"
        kind = http.client.HTTPConnection if plain else http.client.HTTPSConnection
        return kind(self.url.host, timeout=_TIMEOUT_SECONDS)

    def expect(self, response: Response, status: HTTPStatus, action: str) -> Response:
        """Return a response, or raise the registry's own message for any other status."""
        if response.status == status:
            return response
        message = f"{self.url}: {action}: status {response.status} {_error_text(response.body)}"
        hint = "see the registry's log"
        if response.status == HTTPStatus.UNAUTHORIZED:
            hint = "imgload does not log in: use docker push"
        raise RegistryError(message.strip(), hint=hint)

    def location(self, response: Response) -> str:
        """Return the path and query of a response's Location; another host is an error."""
        header = response.headers.get("location", "")
        location = urlsplit(urljoin(f"{self.url}/v2/", header))
        if location.netloc != self.url.host or not header:
            raise RegistryError(
                f"{self.url} redirects the upload to {location.netloc or 'no address'!r}",
                hint="push to the registry itself, not to a proxy in front of it",
            )
        return f"{location.path}?{location.query}" if location.query else location.path

    @contextmanager
    def map_errors(self, method: str, target: str) -> Iterator[None]:
        """Raise RegistryError for every error of a connection."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RegistryError(
                f"{self.url} does not answer ({method} {target.partition('?')[0]}): {reason}",
                hint="check that the registry runs and that this machine reaches it:"
                f" curl {shlex.quote(f'{self.url}/v2/')}",
            ) from error


@attrs.define
class BlobUpload:
    """An upload of one blob; `size` counts its bytes."""

    _client: RegistryClient
    _location: str
    _connection: http.client.HTTPConnection | None = None
    size: int = 0

    def write(self, chunk: bytes) -> None:
        """Send a chunk; the first one opens a request with a body of unknown length."""
        if not chunk:
            return
        with self._client.map_errors("PATCH", self._location):
            if self._connection is None:
                self._connection = self._client.connection()
                self._connection.putrequest("PATCH", self._location)
                self._connection.putheader("Content-Type", "application/octet-stream")
                self._connection.putheader("Transfer-Encoding", "chunked")
                self._connection.endheaders()
            for part in (b"%x\r\n" % len(chunk), chunk, b"\r\n"):
                self._connection.send(part)
        self.size += len(chunk)

    def finish(self, digest: Digest) -> None:
        """Commit the blob; the registry compares it with its digest."""
        if self._connection:
            with self._client.map_errors("PATCH", self._location):
                self._connection.send(b"0\r\n\r\n")
                response = read_response(self._connection)
            self.abandon()
            self._client.expect(response, HTTPStatus.ACCEPTED, f"uploading {digest}")
            self._location = self._client.location(response)
        joint = "&" if "?" in self._location else "?"
        target = f"{self._location}{joint}digest={digest}"
        self._client.request("PUT", target, HTTPStatus.CREATED, f"uploading {digest}")

    def abandon(self) -> None:
        """Close the connection; the registry discards the incomplete blob."""
        if self._connection:
            self._connection.close()
            self._connection = None


def read_response(connection: http.client.HTTPConnection) -> Response:
    """Read a whole response; HTTPException if its body is longer than any manifest."""
    response = connection.getresponse()
    body = response.read(MAX_DOCUMENT + 1)
    if len(body) > MAX_DOCUMENT:
        raise http.client.HTTPException(f"the response has more than {MAX_DOCUMENT} bytes")
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Response(response.status, headers, body)


def media_type(raw: bytes) -> str:
    """Return a manifest's media type; an OCI document may omit it."""
    document = parse_json(raw, "a manifest")
    declared = document.get("mediaType")
    if declared in _MEDIA_TYPES:
        return str(declared)
    return INDEX if "manifests" in document else MANIFEST


def _error_text(body: bytes) -> str:
    """Return a registry's error message in one line (OCI distribution spec, "Error Codes")."""
    try:
        errors: Any = load_json(body)["errors"]
        text = "; ".join(f"{e['code']}: {e.get('message') or ''}".rstrip(": ") for e in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:300].decode(errors="replace")
    return " ".join(text.split())
