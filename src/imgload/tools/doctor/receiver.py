"""Check whether an engine can push to this process, which the delta transport needs."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from imgload.core.errors import EngineError, EngineFailed, ImgloadError
from imgload.core.parallel import Task
from imgload.core.state import state_folder
from imgload.engines.base import Engine
from imgload.engines.cache import Memory
from imgload.registry.handler import receiving
from imgload.registry.sink import Manifests
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.timeouts import call_each

_SECONDS = 3.0


def check_receivers(engines: Sequence[Engine]) -> Iterator[Finding]:
    """Yield for each engine whether it can push to this process.

    An engine on this machine looks up an image in a registry of this process: it stores nothing.
    """
    for engine, reached in call_each(_reaches_us, engines, _SECONDS + 1):
        endpoint = engine.endpoint
        if isinstance(reached, ImgloadError):
            yield Finding.of("receiver", reached, "info")
        elif not endpoint.local:
            what = f"{endpoint} is on another machine and cannot push here: images are saved whole"
            yield Finding("receiver", "info", what)
        elif not reached:
            what = f"{endpoint} cannot reach this process (does it run in a VM?)"
            yield Finding("receiver", "info", f"{what}: images are saved whole, which is slower")
        else:
            yield Finding("receiver", "ok", f"{endpoint} can push here: only missing layers move")
            if Memory.load().is_cut_off(endpoint.url):
                what = f"{endpoint} could not push here within the last day: images are saved whole"
                cache = shlex.quote(str(state_folder() / "engines.json"))
                yield Finding("receiver", "info", what, f"to clear this cache: rm {cache}")


def _reaches_us(engine: Engine) -> bool:
    if not engine.endpoint.local:
        return False
    reached = threading.Event()

    def look_up(repository: str) -> None:
        with suppress(EngineError):
            engine.look_up(repository)

    with receiving(Manifests(), reached=reached.set) as repository:
        task = Task(partial(look_up, repository))
        task.settle(_SECONDS)
    if not reached.is_set() and not task.done:
        raise EngineFailed(f"{engine.endpoint} takes too long to look up an image in a registry")
    return reached.is_set()
