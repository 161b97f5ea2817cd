"""Another program on this machine that attacks the receiver."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

_ZEROS = "0" * 32
_NO_UPLOAD = "0" * 16
_BLOB = b"a blob that nobody requested"
CLIMBING = ("..", "%2e%2e", "..%2f..%2fetc", "....//", "%00", "a%0d%0ab", "*", "$(touch x)", "'")
"""Replacements for each part of a path."""


@attrs.frozen
class Victim:
    """The process of a running imgload, as other processes see it."""

    pid: int

    @property
    def threads(self) -> int:
        """The number of its threads."""
        return self._status("Threads")

    @property
    def most_memory(self) -> int:
        """Its peak resident memory, in bytes."""
        return self._status("VmHWM") * 1024

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@attrs.define
class Attack:
    """Requests and connections that are made in parallel, as long as the attack lasts."""

    port: int
    sent: int = 0
    connections: int = 0
    _over: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    @contextlib.contextmanager
    def lasting(self, root: str) -> Iterator[None]:
        """Keep up idle connections, slow requests, endless headers and endless chunks.

        Args:
            root: the repository to which the chunks are sent.

        """
        actions = [self._open_idle_connections, *[self._slow] * 5, *[self._headers] * 5]
        actions += [lambda: self._chunks(root)] * 5
        self._threads = [threading.Thread(target=self._keep_up, args=(a,)) for a in actions]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _keep_up(self, act: Callable[[], None]) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                act()
            self._over.wait(0.02)

    def _connect(self) -> socket.socket:
        self.connections += 1
        return socket.create_connection(("127.0.0.1", self.port), timeout=2)

    def _open_idle_connections(self) -> None:
        """Open a thousand connections, and send nothing."""
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                if not self._over.is_set():
                    stack.enter_context(self._connect())
            self._over.wait(0.2)

    def _slow(self) -> None:
        with self._connect() as connection:
            for byte in b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" * 100:
                connection.sendall(bytes([byte]))
                if self._over.wait(0.05):
                    return

    def _headers(self) -> None:
        with self._connect() as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\n")
            while not self._over.is_set():
                connection.sendall(b"X: " + b"x" * 65_000 + b"\r\n")
                self.sent += 65_000

    def _chunks(self, root: str) -> None:
        with self._connect() as connection:
            head = f"PATCH {root}blobs/uploads/{self._begin(root)} HTTP/1.1\r\n"
            connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            while not self._over.is_set():
                connection.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")
                self.sent += 65_536

    def ask(self, method: str, path: str, body: bytes | None = None) -> int:
        """Return the status of the response, or 0 without a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            return connection.getresponse().status
        return 0

    def from_outside(self) -> dict[str, int]:
        """Send requests without knowing the repository; return the status of each."""
        answers = {}
        for root in _wrong_roots():
            for method, rest in _requests(hashlib.sha256(_BLOB).hexdigest()):
                answers[f"{method} {root}{rest}"] = self.ask(method, f"{root}{rest}", _BLOB)
        return answers

    def from_inside(self, root: str) -> dict[str, int]:
        """Send invalid requests to the right repository; return the status of each."""
        unrequested, wrong = hashlib.sha256(_BLOB).hexdigest(), "f" * 64
        answers = {
            f"{method} {rest}": self.ask(method, f"{root}{rest}", _BLOB)
            for word in CLIMBING
            for method, rest in _climbing(word, unrequested)
        }
        for digest in (f"sha256:{wrong}", f"sha512:{unrequested}", "md5:x", "", "../x"):
            path = f"{root}blobs/uploads/{self._begin(root)}?digest={digest}"
            answers[f"PUT {digest}"] = self.ask("PUT", path, _BLOB)
        answers["PUT manifests"] = self.ask("PUT", f"{root}manifests/sha256:{wrong}", b"{}")
        answers["PUT of a shared upload"] = self._share(root, unrequested)
        answers["PUT of two lengths"] = self._two_lengths(root)
        return answers

    def _share(self, root: str, digest: str) -> int:
        """Begin a PUT, and return the status of another one for the same upload."""
        path = f"{root}blobs/uploads/{self._begin(root)}?digest=sha256:{digest}"
        with self._connect() as first:
            head = f"PUT {path} HTTP/1.1\r\nContent-Length: {len(_BLOB)}\r\n\r\n"
            first.sendall(head.encode() + _BLOB[:-1])
            time.sleep(0.2)  # its thread has read that
            return self.ask("PUT", path, _BLOB)

    def _two_lengths(self, root: str) -> int:
        """Push a manifest whose headers contradict each other."""
        with self._connect() as connection, contextlib.suppress(OSError):
            head = f"PUT {root}manifests/x HTTP/1.1\r\nContent-Length: 2\r\n"
            body = "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
            connection.sendall((head + body).encode())
            return int(connection.recv(12).rpartition(b" ")[2] or 0)
        return 0

    def push_unrequested(self, root: str) -> int:
        """Push a blob that nobody requested, with its correct digest."""
        digest = hashlib.sha256(_BLOB).hexdigest()
        path = f"{root}blobs/uploads/{self._begin(root)}?digest=sha256:{digest}"
        return self.ask("PUT", path, _BLOB)

    def _begin(self, root: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("POST", f"{root}blobs/uploads/")
            return (connection.getresponse().getheader("Location") or _NO_UPLOAD)[-16:]


def _wrong_roots() -> list[str]:
    words = (_ZEROS, *CLIMBING)
    below = [f"/v2/imgload/{word}/" for word in words] + [f"/v2/{word}/{_ZEROS}/" for word in words]
    return [*below, "/v2/library/app/", "/v2/imgload/", "/imgload/", "//v2/imgload/x/"]


def _requests(digest: str) -> list[tuple[str, str]]:
    return [
        ("HEAD", f"blobs/sha256:{digest}"),
        ("POST", "blobs/uploads/"),
        ("PATCH", f"blobs/uploads/{'0' * 16}"),
        ("PUT", f"blobs/uploads/{'0' * 16}?digest=sha256:{digest}"),
        ("PUT", "manifests/latest"),
    ]


def _climbing(word: str, digest: str) -> list[tuple[str, str]]:
    quoted = word.replace(" ", "%20")
    return [
        ("HEAD", f"blobs/{quoted}"),
        ("HEAD", f"{quoted}/blobs/sha256:{digest}"),
        ("POST", f"{quoted}/uploads/"),
        ("POST", f"blobs/{quoted}/"),
        ("PATCH", f"blobs/uploads/{quoted}"),
        ("PUT", f"blobs/uploads/{quoted}?digest=sha256:{digest}"),
        ("PUT", f"manifests/{quoted}"),
        ("PUT", f"{quoted}/manifests/latest"),
    ]
