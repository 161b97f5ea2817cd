"""The server of the lab's crictl: `python -m tests.lab.crictl_server PID_OF_NODE`."""

import os
import selectors
import shlex
import socketserver
import sys
import threading
from pathlib import Path

from tests.lab.crictl import PORT, answer


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        argv = [self._word() for _ in range(int(self._word()))]
        assert isinstance(self.server, _Server)
        stdout, stderr, status = answer(self.server.root, argv)
        script = f"printf %s {shlex.quote(stdout)}; printf %s {shlex.quote(stderr)} >&2"
        self.wfile.write(f"{script}; exit {status}\n".encode())

    def _word(self) -> str:
        word = bytearray()
        while byte := self.rfile.read(1).strip(b"\0"):
            word += byte
        return word.decode()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", PORT), _Handler)
        self.root = root


def _serve(pid: int) -> None:
    with _Server(Path(f"/proc/{pid}/root")) as server, selectors.DefaultSelector() as end:
        end.register(os.pidfd_open(pid), selectors.EVENT_READ)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print("listening", flush=True)  # noqa: T201
        end.select()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
