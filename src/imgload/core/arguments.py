"""Checks of the arguments that callers of the library pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imgload.core.errors import UsageError


def require_string(value: object, argument: str) -> str:
    """Return an argument of a caller that must be a string or a path.

    Raises:
        UsageError: if it is something else; names the `argument`.

    """
    if hasattr(value, "__fspath__"):
        value = value.__fspath__()
    if not isinstance(value, str):
        raise UsageError(f"{argument} must be a string, not {value!r:.100}")
    return value


def optional_string(value: object, argument: str) -> str | None:
    """Return an optional argument; see `require_string`."""
    return None if value is None else require_string(value, argument)


def require_strings(values: object, argument: str) -> tuple[str, ...]:
    """Return an argument that must be one or several strings; see `require_string`."""
    if isinstance(values, str) or hasattr(values, "__fspath__"):
        return (require_string(values, argument),)
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise UsageError(f"{argument} must be one or several strings, not {values!r:.100}")
    return tuple(require_string(value, argument) for value in values)


def require_choice(value: object, choices: Sequence[str], argument: str) -> None:
    """Raise UsageError unless an argument is one of the choices."""
    if value not in choices:
        raise UsageError(f"{argument} must be {' or '.join(choices)}, not {value!r:.100}")


def require_flags(**arguments: object) -> None:
    """Raise UsageError unless each argument is True or False."""
    for argument, value in arguments.items():
        if not isinstance(value, bool):
            raise UsageError(f"{argument} must be True or False, not {value!r:.100}")


def require_callback(value: object, argument: str) -> None:
    """Raise UsageError unless an argument is callable."""
    if not callable(value):
        raise UsageError(f"{argument} must be callable, not {value!r:.100}")
