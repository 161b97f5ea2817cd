"""Whether an engine can push to this process: only then does no more move than what is missing."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from imgload.core.errors import EngineError, EngineFailed, ImgloadError
from imgload.core.parallel import Task
from imgload.core.state import state_folder
from imgload.engines.base import Engine
from imgload.engines.cache import Memory
from imgload.engines.endpoint import Endpoint
from imgload.registry.handler import receiving
from imgload.registry.sink import Manifests
from imgload.tools.doctor.finding import Finding

SECONDS = 3.0


def reaches_us(engine: Engine) -> bool:
    """Whether the engine's requests to 127.0.0.1 come to this process, to which it would push.

    It looks an image up, which stores nothing in it. An engine on another machine is not asked.

    Raises:
        EngineFailed: when it takes too long to try.

    """
    if not engine.endpoint.local:
        return False
    heard = threading.Event()
    with receiving(Manifests(), reached=heard.set) as repository:
        task = Task(partial(_look_up, engine, repository))
        task.settle(SECONDS)
    if not heard.is_set() and not task.done:
        raise EngineFailed(f"{engine.endpoint} takes too long to look for an image in a registry")
    return heard.is_set()


def _look_up(engine: Engine, repository: str) -> None:
    with suppress(EngineError):
        engine.look_up(repository)


def check_receiver(endpoint: Endpoint, *, reached: bool | ImgloadError) -> Iterator[Finding]:
    """Yield what it means for an engine, and what an earlier failure does.

    Args:
        endpoint: the engine.
        reached: what came of `reaches_us`.

    """
    if isinstance(reached, ImgloadError):
        yield Finding.of("receiver", reached, "info")
        return
    if not endpoint.local:
        what = f"{endpoint} is on another machine and cannot push here: its images are saved whole"
        yield Finding("receiver", "info", what)
        return
    if not reached:
        what = f"{endpoint} cannot reach this process (does it run in a VM?)"
        yield Finding("receiver", "info", f"{what}: its images are saved whole, which takes longer")
        return
    yield Finding("receiver", "ok", f"{endpoint} can push here: only what is missing moves")
    if Memory.load().is_cut_off(endpoint.url):
        what = f"{endpoint} could not push here within the last day, so that images are saved whole"
        memory = shlex.quote(str(state_folder() / "engines.json"))
        yield Finding("receiver", "info", what, f"to forget that: rm {memory}")
