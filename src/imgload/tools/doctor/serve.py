"""Check a running `imgload serve`, and whether it serves an image."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from imgload.engines.base import Engine
from imgload.oci.reference import parse_unless_id
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.image import find_in_engines
from imgload.tools.serve.images import refusal
from imgload.tools.serve.running import Running, find_running


def check_serve(
    text: str | None, engines: Sequence[Engine]
) -> Generator[Finding, None, Running | None]:
    """Yield whether a server runs, and whether it serves an image; return it if it does."""
    running = find_running()
    if running is None:
        return None
    clusters = f", to {', '.join(running.clusters)}" if running.clusters else ""
    what = f"imgload serve runs (process {running.pid}) and serves {running.describe}{clusters}"
    yield Finding("serve", "ok", what)
    reference = parse_unless_id(text) if text else None
    if reference is None:
        return None
    source = running.source
    searched = [e for e in engines if source in {None, e.name, e.endpoint.url}]
    if not searched:
        what = f"imgload serve reads the images of {source}, and the doctor finds no such engine"
        yield Finding("serve", "info", what)
        return None
    _, image = find_in_engines(reference.familiar, searched)
    reason = refusal(reference, image, running.patterns, pulled=running.pulled)
    if reason:
        what = f"imgload serve does not serve {reference.familiar}: {reason}"
        again = "run imgload serve with another pattern, with --all, or for another engine"
        yield Finding("serve", "info", what, again if image else "")
        return None
    what = f"imgload serve serves {reference.familiar}; its output has the errors of pulls"
    yield Finding("serve", "ok", what)
    return running
