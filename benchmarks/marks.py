"""Run imgload and write down when which phase begins: `marks.py REPORT ARGUMENT...`.

imgload itself knows nothing of it: each module is marked right after it was imported, whenever
imgload imports it, so that start-up stays what it is.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

BEGINS = {
    "imgload.loader.loader": {"Loader.connect": "find engines and nodes", "make_plan": "plan"},
    "imgload.loader.prepare": {
        "locate": "inspect the image",
        "survey_all": "survey the nodes",
        "identify": "identify the image",
    },
    "imgload.loader.send": {"push": "the engine's push", "Sending.by_save": "save and send"},
    "imgload.transports.imports": {
        "ImportTransport.start": "start the import",
        "ImportShipment.finish": "import, proof",
    },
    "imgload.transports.pull": {
        "PullTransport.start": "start the pull",
        "PullShipment.finish": "pull, proof",
    },
    "imgload.loader.execute": {"Executor.report": "report, exit"},
}
"""Functions of imgload by module, and the phase that begins when one is called."""
_seen: list[tuple[str, float]] = []


class _Finder(MetaPathFinder):
    """Marks the modules that are named above."""

    def find_spec(
        self, name: str, path: Any, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as always, and have it marked."""
        spec = PathFinder.find_spec(name, path) if name in BEGINS else None
        if spec and spec.loader:
            _mark_after(spec.loader, BEGINS[name])
        return spec


def _mark_after(loader: Loader, begins: dict[str, str]) -> None:
    run = loader.exec_module

    def run_and_mark(module: ModuleType) -> None:
        run(module)
        for name, phase in begins.items():
            _wrap(module, name, phase)

    loader.exec_module = run_and_mark  # type: ignore[method-assign]


def _wrap(owner: Any, name: str, phase: str) -> None:
    first, _, rest = name.partition(".")
    if rest:
        _wrap(getattr(owner, first), rest, phase)
        return
    found = vars(owner)[name]
    bound = isinstance(found, classmethod)
    marked = _marked(found.__func__ if bound else found, phase)
    setattr(owner, name, classmethod(marked) if bound else marked)


def _marked(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        _seen.append((phase, time.monotonic()))
        return function(*args, **options)

    return call


def main() -> None:
    """Run `imgload ARGUMENT...`."""
    report = Path(sys.argv.pop(1))
    end = os._exit

    def write_and_end(status: int) -> NoReturn:
        report.write_text(json.dumps(_seen), encoding="utf-8")
        end(status)

    os._exit = write_and_end
    sys.meta_path.insert(0, _Finder())
    from imgload.__main__ import program  # noqa: PLC0415 - it is marked as it is imported

    program()


if __name__ == "__main__":
    main()
