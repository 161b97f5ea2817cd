"""Answer every request with one line; change it to see a rebuild."""

from http.server import BaseHTTPRequestHandler, HTTPServer

GREETING = "hello from imgload"
PORT = 8080


class Greeter(BaseHTTPRequestHandler):
    """Answers with the greeting."""

    def do_GET(self) -> None:
        """Send the greeting."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{GREETING}\n".encode())


HTTPServer(("", PORT), Greeter).serve_forever()
