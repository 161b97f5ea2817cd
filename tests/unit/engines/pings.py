"""A socket on which pings, and the question who is there, are answered as an engine does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

PODMAN = {"Libpod-Api-Version": "4.3.1", "Api-Version": "1.41"}
DOCKER = {"Api-Version": "1.41", "Server": "Docker/20.10"}


@contextmanager
def engine(path: Path, headers: dict[str, str], info: object = None) -> Iterator[str]:
    """Answer on a socket.

    Args:
        path: of the socket.
        headers: of every answer.
        info: the document that ``/info`` is; None for the socket's own path.

    """
    own = {"ID": str(path), "store": {"graphRoot": str(path)}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(own if info is None else info).encode()
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "local"

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()
