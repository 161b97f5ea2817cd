"""Answers every request with one line; change it, and see how soon the new one is there."""

from http.server import BaseHTTPRequestHandler, HTTPServer

GREETING = "hello from imgload"
PORT = 8080


class Greeter(BaseHTTPRequestHandler):
    """Knows one answer."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{GREETING}\n".encode())


HTTPServer(("", PORT), Greeter).serve_forever()
