"""Patterns of image names: names, repositories and globs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.reference import Reference

_ALLOWED = re.compile(r"[\w./:*?\[\]!-]{1,300}", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
_IMPORT_NAME = re.compile(r"(?:docker\.io/library/)?import-\d{4}-\d{2}-\d{2}@sha256:[0-9a-f]{64}")
"""The second name that ``ctr images import --digests`` gives every image (kind #4028)."""


def repository_of(name: str) -> str:
    """Return the repository of a full name; a name that Kubernetes would reject as it is."""
    return _spellings(name)[-1]


def familiar_name(name: str) -> str:
    """Return the short form of a full name: ``app:v1`` for ``docker.io/library/app:v1``."""
    spellings = _spellings(name)
    return spellings[1] if len(spellings) > 1 else name


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a full name matches a pattern: a full or short name or repository, with globs."""
    spellings = _spellings(name)
    return any(fnmatchcase(spelling, pattern) for spelling in spellings for pattern in patterns)


def parse_patterns(texts: Iterable[str]) -> list[str]:
    """Return patterns for `matches`; ReferenceInvalid is raised if no image name can match."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> str:
    repository, colon, tag = _split(text)
    if not _ALLOWED.fullmatch(text) or repository.endswith(("/", ":")) or (colon and not tag):
        raise ReferenceInvalid(
            f"not a pattern of image names: {text!r:.300}",
            hint="write it as a name with * for any text: app, app:dev-*, ghcr.io/me/*",
        )
    if not _GLOB.search(tag):
        Reference.parse(f"app{colon}{tag}", text)
    if not _GLOB.search(repository):
        repository = Reference.parse(repository, text).untagged.familiar
    return f"{repository}{colon}{tag}"


def engine_filter(pattern: str) -> str | None:
    """Return a pattern as an engine's filter, or None if its meaning differs for engines.

    There, ``*`` does not match slashes, and ``[!a]`` is written ``[^a]``.
    """
    repository, _, tag = _split(pattern)
    same = not _GLOB.search(repository) and "[" not in tag
    return f"{repository}:{tag or '*'}" if same else None


def pod_name(name: str, patterns: Sequence[str]) -> str | None:
    """Return the name by which a pod refers to an engine's image, if it matches a pattern.

    Podman prefixes short names with ``localhost/``; pods omit it, unless the pattern has it. A name
    with a digest and no tag never matches: it is never built again.
    """
    try:
        stored = Reference.parse(name)
        spellings = (stored.without_localhost(), stored)
    except ReferenceInvalid:
        return None
    matching = (s.familiar for s in spellings if s.tag and matches(str(s), patterns))
    return next(matching, None)


def _split(text: str) -> tuple[str, str, str]:
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    return f"{head}{slash}{name}", colon, tag


def repositories_of(names: Iterable[str]) -> frozenset[str]:
    """Return the repositories of names, except for those made up by an import."""
    return frozenset(repository_of(name) for name in names if not _IMPORT_NAME.fullmatch(name))


def require_repositories(patterns: Iterable[str]) -> None:
    """Raise UsageError if a pattern has a tag or a digest."""
    for pattern in patterns:
        repository = _split(pattern.partition("@")[0])[0]
        if repository != pattern:
            raise UsageError(
                f"not a repository: {pattern!r:.200}: it has a tag or a digest",
                hint=f"imgload prune {shlex.quote(repository[:200])}",
            )


def _spellings(name: str) -> tuple[str, ...]:
    """Return the ways to write a name; the full repository is the last."""
    try:
        full = Reference.parse(name)
    except ReferenceInvalid:
        return (name,)
    return name, full.familiar, full.untagged.familiar, str(full.untagged)
