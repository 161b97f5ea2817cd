"""Image names, normalised like Kubernetes does, and patterns of them.

The grammar is that of the distribution project's reference package, which the kubelet and
containerd's CRI use: ``app`` means ``docker.io/library/app:latest``, and a first part with a dot,
a colon, an upper-case letter, or ``localhost``, is a registry.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

from imgload.core.arguments import require_string
from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.digest import Digest

_DOCKER_HUB = "docker.io"
_DEFAULT_TAG = "latest"
_MAX_REPOSITORY = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_REGISTRY = re.compile(rf"{_HOST}(?::[0-9]+)?", re.ASCII)
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_IMAGE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_FULL_IMAGE_ID = re.compile(r"[0-9a-f]{64}|sha256:[0-9a-f]{4,64}", re.ASCII)
_HEX_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ALLOWED = re.compile(r"[\w./:*?\[\]!-]{1,300}", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
_IMPORT_NAME = re.compile(r"(?:docker\.io/library/)?import-\d{4}-\d{2}-\d{2}@sha256:[0-9a-f]{64}")
"""The second name that ``ctr images import --digests`` gives every image (kind #4028)."""
_DANGLING = re.compile(r"(?:docker\.io/library/)?(?:moby-dangling@.*|<none>.*)")
"""Names of untagged images in Docker's containerd image store, and in lists of engines."""


@attrs.frozen
class Reference:
    """A parsed image name.

    Args:
        registry: host and port; ``docker.io`` by default.
        repository: path in the registry, with ``library/`` where Docker Hub implies it.
        tag: None only if there is a digest.
        digest: manifest digest after ``@``, or None.
        written: path as it was written, if without a registry.

    """

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None = None
    written: str = attrs.field(default="", eq=False)

    @classmethod
    def parse(cls, text: str, whole: str = "") -> Reference:
        """Parse and normalise a name as in a pod spec.

        Args:
            text: the name.
            whole: text to report if the name is invalid; empty for the name itself.

        Raises:
            ReferenceInvalid: if Kubernetes would report ``InvalidImageName``.

        """
        text = require_string(text, "an image name")
        whole = whole or text
        scheme, has_scheme, _ = text.partition("://")
        if has_scheme:
            raise _invalid(whole, f"{f'{scheme}://'!r:.60} is not part of a name")
        rest, at, digest_text = text.partition("@")
        digest = Digest.try_parse(digest_text) if at else None
        name, colon, tag = _split(rest)
        if at and digest is None:
            raise _invalid(whole, f"{digest_text!r} is not a digest")
        if colon and not _TAG.fullmatch(tag):
            raise _invalid(whole, f"{tag!r} is not a tag")
        registry, repository, written = _split_registry(name)
        _check(whole, registry, repository)
        default = None if digest else _DEFAULT_TAG
        return cls(registry, repository, tag or default, digest, written)

    @property
    def is_short(self) -> bool:
        """Whether the name was written without a registry."""
        return bool(self.written)

    @property
    def familiar(self) -> str:
        """The short form: ``app:v1`` for ``docker.io/library/app:v1``."""
        name = f"{self.registry}/{self.repository}"
        if self.registry == _DOCKER_HUB:
            official = self.repository.removeprefix("library/")
            name = self.repository if "/" in official else official
        return name + self._suffix

    @property
    def record(self) -> str:
        """The name as containerd's CRI stores it: with a digest, the tag is dropped."""
        return str(attrs.evolve(self, tag=None) if self.digest else self)

    @property
    def pulls_always(self) -> bool:
        """Whether the kubelet by default pulls this name each time."""
        return self.digest is None and self.tag == _DEFAULT_TAG

    def with_localhost(self) -> Reference:
        """Return the name that Podman gives to a local build of a short name."""
        return Reference("localhost", self.written or self.repository, self.tag, self.digest)

    def without_localhost(self) -> Reference:
        """Return the name without the ``localhost/`` with which Podman prefixes short names."""
        if self.registry != "localhost":
            return self
        return Reference.parse(str(self).removeprefix("localhost/"))

    @property
    def untagged(self) -> Reference:
        """The name without tag and digest."""
        return attrs.evolve(self, tag=None, digest=None)

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self._suffix}"


def is_registry(text: str) -> bool:
    """Whether a text can be the registry of an image name: a host, with or without a port."""
    return _REGISTRY.fullmatch(text) is not None


def pinned(name: str) -> Digest | None:
    """Return the manifest digest that a full name demands (``repo@sha256:…``), or None."""
    _, at, digest = name.partition("@")
    return Digest.parse(digest) if at else None


def is_tagged(name: str) -> bool:
    """Whether a full name has a tag, and neither is by digest nor an image ID."""
    return pinned(name) is None and not is_full_image_id(name)


def image_id_prefix(text: str) -> str | None:
    """Return the hexadecimal digits of a text that may be an image ID, full or shortened."""
    match = _IMAGE_ID.fullmatch(text)
    return match[1] if match else None


def is_full_image_id(text: str) -> bool:
    """Whether a text can only be an image ID, since Kubernetes allows no such name."""
    return _FULL_IMAGE_ID.fullmatch(text) is not None


def is_made_up(name: str) -> bool:
    """Whether a program gave this name to an image without a name; it may also be an image ID."""
    patterns = (_IMPORT_NAME, _DANGLING, _FULL_IMAGE_ID)
    return any(pattern.fullmatch(name) for pattern in patterns)


def parse_unless_id(text: str) -> Reference | None:
    """Parse an image name; return None if it can only be an image ID."""
    return None if is_full_image_id(text) else Reference.parse(text)


def _split(text: str) -> tuple[str, str, str]:
    """Return the name, the colon and the tag of a name or a pattern."""
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    return f"{head}{slash}{name}", colon, tag


def _split_registry(name: str) -> tuple[str, str, str]:
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    registry, path = (first, rest) if is_host else (_DOCKER_HUB, name)
    if registry == "index.docker.io":
        registry = _DOCKER_HUB
    if registry == _DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return registry, path, "" if is_host else name


def _check(text: str, registry: str, repository: str) -> None:
    if not _REGISTRY.fullmatch(registry):
        raise _invalid(text, f"{registry!r} is not a registry")
    if len(repository) > _MAX_REPOSITORY:
        raise _invalid(text, f"longer than {_MAX_REPOSITORY} characters")
    if _HEX_ID.fullmatch(text):
        raise _invalid(text, "64 hexadecimal digits are an image ID")
    if not _REPOSITORY.fullmatch(repository):
        lower = " (a repository is all lower case)" if repository != repository.lower() else ""
        raise _invalid(text, f"{repository.removeprefix('library/')!r} is not a repository{lower}")


def _invalid(text: str, reason: str) -> ReferenceInvalid:
    return ReferenceInvalid(
        f"not an image name: {text!r:.300}: {reason}",
        hint="write it as in a pod spec: [REGISTRY/]REPOSITORY[:TAG], for example app:v1",
    )


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
    return [_parse_pattern(text) for text in texts]


def _parse_pattern(text: str) -> str:
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
