"""`python -m docs.recording`: record docs/recording.svg from a real run.

It uses an engine and nodes of the lab, so it needs root. Run it after a change of the output.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import tempfile
from pathlib import Path

from rich import _export_format
from rich.console import Console
from rich.text import Text

from tests.lab import Lab

_HERE = Path(__file__).parent
_COLUMNS = 104
_SESSION = (
    "docker build -q -t app:dev .",
    "imgload load app:dev",
    "echo 'print(2)' >> app.py && docker build -q -t app:dev .",
    "imgload load app:dev",
)
_PART = re.compile(r"\x1b\[[\d;?]*[A-Za-z]|\n|[^\x1b\r\n]+")
_WEB_FONT = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
_KUBECONFIG = "{apiVersion: v1, kind: Config, current-context: kind-kind}"


def record(folder: Path, environ: dict[str, str]) -> Console:
    """Run the session in `folder`, and return a console that has recorded it."""
    console = Console(record=True, width=_COLUMNS, force_terminal=True, file=io.StringIO())
    for number, command in enumerate(_SESSION):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        for line in screen_lines(run_in_terminal(command, folder, environ)):
            console.print(Text.from_ansi(line))
    return console


def run_in_terminal(command: str, folder: Path, environ: dict[str, str]) -> str:
    """Return the bytes that a command writes to a terminal, as text."""
    main, other = pty.openpty()
    # the lab's client of Docker warns that it has no buildx
    errors = subprocess.DEVNULL if "docker" in command else other
    argv = ["sh", "-c", command]
    with subprocess.Popen(argv, cwd=folder, env=environ, stdout=other, stderr=errors) as process:
        os.close(other)
        output = b""
        try:
            while piece := os.read(main, 1 << 16):
                output += piece
        except OSError:  # Linux's end of a terminal
            os.close(main)
    if process.returncode:
        raise SystemExit(output.decode())
    return output.decode()


def screen_lines(output: str) -> list[str]:
    """Return the lines on the screen at the end: progress bars move up and erase themselves."""
    lines, row = [""], 0
    for part in _PART.findall(output):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b") or part.endswith("m"):
            lines[row] += part
    while lines and not lines[-1]:
        lines.pop()
    return lines


def main() -> None:
    """Build, load, change and load an image, and write the picture."""
    with tempfile.TemporaryDirectory() as name, Lab.open("docker28") as lab:
        folder = Path(name)
        lab.make_cluster(
            name="kind", engine="docker28", crictl=True, roles=("control-plane", "worker")
        )
        (folder / "kubeconfig").write_text(_KUBECONFIG)
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY base /\nCOPY app.py /\n")
        (folder / "base").write_bytes(os.urandom(60 << 20))
        (folder / "app.py").write_text("print(1)\n")
        environ = {**os.environ, **lab.environ("docker28"), "COLUMNS": str(_COLUMNS)}
        environ |= {"TERM": "xterm-256color", "DOCKER_BUILDKIT": "0"}
        environ |= {"KUBECONFIG": str(folder / "kubeconfig"), "XDG_CACHE_HOME": str(folder)}
        console = record(folder, environ)
        lab.docker28.remove_image("app:dev")
    form = _WEB_FONT.sub("", _export_format.CONSOLE_SVG_FORMAT)
    svg = console.export_svg(title="imgload", code_format=form, unique_id="recording")
    (_HERE / "recording.svg").write_text(svg)


if __name__ == "__main__":
    main()
