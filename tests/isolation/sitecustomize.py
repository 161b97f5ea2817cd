"""Hide the machine's sockets and Podman connections from imgload, in whatever process imports this.

Python imports a module of this name at its start if it is on PYTHONPATH, so this reaches
subprocesses as well; coverage.py measures them in the same way.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def _change(module: ModuleType) -> None:
    module._SYSTEM = ()  # type: ignore[attr-defined]  # noqa: SLF001
    is_there = module._is_there  # noqa: SLF001
    machines = ("/run/", "/var/run/")
    module._is_there = (  # type: ignore[attr-defined]  # noqa: SLF001
        lambda path: not str(path).startswith(machines) and is_there(path)
    )


class _Finder:
    """Changes a module as soon as it is imported; no other module is imported for it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "imgload.engines.discovery.candidates":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                _change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder)
