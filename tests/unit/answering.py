"""An HTTP server on a socket that answers every GET with a JSON document."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

Answer = tuple[int, Mapping[str, str], object]


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore errors: a ping closes the connection before the body."""


@contextmanager
def answering(path: Path, answer: Callable[[str], Answer]) -> Iterator[str]:
    """Serve on a socket, and yield its address.

    Args:
        path: path of the socket.
        answer: returns status, headers and document for a requested path.

    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, document = answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "local"

        def log_message(self, *_: object) -> None:
            pass

    with _Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()
