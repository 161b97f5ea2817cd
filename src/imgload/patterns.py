"""Which image names are meant by what a user writes: names, repositories, globs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

from imgload.errors import ReferenceInvalid, UsageError
from imgload.reference import Reference

_BY_IMPORT = re.compile(r"(?:docker\.io/library/)?import-\d{4}-\d{2}-\d{2}@sha256:[0-9a-f]{64}")
"""What ``ctr images import --digests`` calls every image beside its own name (kind #4028)."""


def repository_of(name: str) -> str:
    """Return a full name's registry and repository; all of a name that Kubernetes would not take.

    For example ``docker.io/library/app`` for ``docker.io/library/app:dev``.
    """
    return _forms(name)[-1]


def familiar_name(name: str) -> str:
    """Return a full name as people write it: ``app:v1`` for ``docker.io/library/app:v1``."""
    forms = _forms(name)
    return forms[1] if len(forms) > 1 else name


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a full name is meant by one of the patterns.

    Args:
        name: as a node has it.
        patterns: names or repositories, in full or as people write them, with ``*`` and ``?``.

    """
    return any(fnmatchcase(form, pattern) for form in _forms(name) for pattern in patterns)


def repositories_of(names: Iterable[str]) -> frozenset[str]:
    """Return the repositories of some names, without those that only an import gave."""
    return frozenset(repository_of(name) for name in names if not _BY_IMPORT.fullmatch(name))


def require_repositories(patterns: Iterable[str]) -> None:
    """Refuse what names one image and not a repository.

    Raises:
        UsageError: when a tag or digest is written.

    """
    for pattern in patterns:
        repository = pattern.partition("@")[0]
        head, slash, last = repository.rpartition("/")
        repository = f"{head}{slash}{last.partition(':')[0]}"
        if repository != pattern:
            raise UsageError(
                f"not a repository: {pattern!r:.200}: it has a tag or a digest",
                hint=f"imgload prune {repository:.200}",
            )


def _forms(name: str) -> tuple[str, ...]:
    """Return all ways to write a name, the repository in full last."""
    try:
        full = Reference.parse(name)
    except ReferenceInvalid:
        return (name,)
    repository = attrs.evolve(full, tag=None, digest=None)
    return name, full.familiar, repository.familiar, str(repository)
