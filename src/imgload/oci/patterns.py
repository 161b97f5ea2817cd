"""Which image names are meant by what a user writes: names, repositories, globs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.reference import Reference

_ALLOWED = re.compile(r"[\w./:*?\[\]!-]{1,300}", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
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


def parse_patterns(texts: Iterable[str]) -> list[str]:
    """Return patterns for `matches`, repositories as people write them.

    Raises:
        ReferenceInvalid: when no image can be called so.

    """
    return [_parsed(text) for text in texts]


def _parsed(text: str) -> str:
    repository, colon, tag = _split(text)
    if not _ALLOWED.fullmatch(text) or repository.endswith(("/", ":")) or (colon and not tag):
        raise ReferenceInvalid(
            f"not a pattern of image names: {text!r:.300}",
            hint="write it as a name with * for anything: app, app:dev-*, ghcr.io/me/*",
        )
    if not _GLOB.search(tag):
        Reference.parse(f"app{colon}{tag}", text)
    if not _GLOB.search(repository):
        repository = Reference.parse(repository, text).untagged.familiar
    return f"{repository}{colon}{tag}"


def engine_filter(pattern: str) -> str | None:
    """Return a pattern as an engine's own filter, or None where engines mean something else.

    To them ``*`` stands for no slash, and ``[!a]`` is written ``[^a]``.
    """
    repository, _, tag = _split(pattern)
    plain = not _GLOB.search(repository) and "[" not in tag
    return f"{repository}:{tag or '*'}" if plain else None


def meant(held: str, patterns: Sequence[str]) -> str | None:
    """Return what a pod calls an image that an engine holds, if a pattern means it.

    Podman puts ``localhost/`` before a short name; a pod has it without, unless the pattern was
    written with it. What has a digest and no tag is never built anew, and not meant.

    Args:
        held: the name as the engine writes it; anything may come.
        patterns: as `parse_patterns` returns them.

    """
    try:
        own = Reference.parse(held)
        names = (own.off_localhost(), own)
    except ReferenceInvalid:
        return None
    fitting = (name.familiar for name in names if name.tag and matches(str(name), patterns))
    return next(fitting, None)


def _split(text: str) -> tuple[str, str, str]:
    """Return a pattern's repository, colon and tag."""
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    return f"{head}{slash}{name}", colon, tag


def repositories_of(names: Iterable[str]) -> frozenset[str]:
    """Return the repositories of some names, without those that only an import gave."""
    return frozenset(repository_of(name) for name in names if not _BY_IMPORT.fullmatch(name))


def require_repositories(patterns: Iterable[str]) -> None:
    """Refuse what names one image and not a repository.

    Raises:
        UsageError: when a tag or digest is written.

    """
    for pattern in patterns:
        repository = _split(pattern.partition("@")[0])[0]
        if repository != pattern:
            raise UsageError(
                f"not a repository: {pattern!r:.200}: it has a tag or a digest",
                hint=f"imgload prune {shlex.quote(repository[:200])}",
            )


def _forms(name: str) -> tuple[str, ...]:
    """Return all ways to write a name, the repository in full last."""
    try:
        full = Reference.parse(name)
    except ReferenceInvalid:
        return (name,)
    return name, full.familiar, full.untagged.familiar, str(full.untagged)
