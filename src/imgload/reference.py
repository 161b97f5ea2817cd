"""Image names, normalised the way Kubernetes does it.

The grammar is that of the distribution project's reference package, which the kubelet and
containerd's CRI use: ``app`` means ``docker.io/library/app:latest``, and a first part with a dot,
a colon, an upper-case letter, or ``localhost``, is a registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from imgload.errors import ArchiveInvalid, ReferenceInvalid, UsageError
from imgload.oci.digest import Digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_MAX_REPOSITORY = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_REGISTRY = re.compile(rf"{_HOST}(?::[0-9]+)?", re.ASCII)
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_IMAGE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})", re.ASCII)
_HEX_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FULL_ID_LENGTH = 64


def string(value: object, what: str) -> str:
    """Return a string that a caller passes; a path counts as one.

    Args:
        value: of an argument.
        what: the argument's name.

    Raises:
        UsageError: when it is something else.

    """
    if hasattr(value, "__fspath__"):
        value = value.__fspath__()
    if not isinstance(value, str):
        raise UsageError(f"{what} must be a string, not {value!r:.100}")
    return value


def string_or_none(value: object, what: str) -> str | None:
    """Return a string that a caller may leave out; see `string`."""
    return None if value is None else string(value, what)


def strings(values: object, what: str) -> tuple[str, ...]:
    """Return the strings that a caller passes, or the only one; see `string`."""
    if isinstance(values, str) or hasattr(values, "__fspath__"):
        return (string(values, what),)
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise UsageError(f"{what} must be one or several strings, not {values!r:.100}")
    return tuple(string(value, what) for value in values)


def require_choice(value: object, choices: Sequence[str], what: str) -> None:
    """Refuse an argument that is not one of its choices.

    Raises:
        UsageError: when it is not.

    """
    if value not in choices:
        raise UsageError(f"{what} must be {' or '.join(choices)}, not {value!r:.100}")


def require_callback(value: object, what: str) -> None:
    """Refuse an argument that cannot be called.

    Raises:
        UsageError: when it cannot.

    """
    if not callable(value):
        raise UsageError(f"{what} must be callable, not {value!r:.100}")


@attrs.frozen
class Reference:
    """A parsed image name.

    Args:
        registry: host and port, ``docker.io`` when none was written.
        repository: the path, with ``library/`` where Docker Hub implies it.
        tag: None only when there is a digest.
        digest: the manifest digest that was written behind ``@``, or None.
        written: the path as it was written, where no registry was.

    """

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None = None
    written: str = attrs.field(default="", eq=False)

    @classmethod
    def parse(cls, text: str, whole: str = "") -> Reference:
        """Parse and normalise a name as a pod spec would have it.

        Args:
            text: the name.
            whole: what it stands for, to be named where it is invalid; empty for itself.

        Raises:
            ReferenceInvalid: when Kubernetes would call it ``InvalidImageName``.

        """
        text = string(text, "an image name")
        whole = whole or text
        rest, at, digest_text = text.partition("@")
        digest = _digest(digest_text, whole) if at else None
        head, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        name = f"{head}/{last}" if slash else last
        if colon and not _TAG.fullmatch(tag):
            raise _invalid(whole, f"{tag!r} is not a tag")
        registry, repository, written = _split_registry(name)
        _check(whole, registry, repository)
        return cls(registry, repository, tag or (None if digest else DEFAULT_TAG), digest, written)

    @property
    def short(self) -> bool:
        """Whether the name was written without a registry."""
        return bool(self.written)

    @property
    def familiar(self) -> str:
        """The short form that people write: ``app:v1`` for ``docker.io/library/app:v1``."""
        name = f"{self.registry}/{self.repository}"
        if self.registry == DEFAULT_REGISTRY:
            official = self.repository.removeprefix("library/")
            name = self.repository if "/" in official else official
        return name + self._suffix

    @property
    def record(self) -> str:
        """The name as containerd's CRI keeps it: a tag is dropped where there is a digest."""
        return str(attrs.evolve(self, tag=None) if self.digest else self)

    @property
    def pulls_always(self) -> bool:
        """Whether the kubelet's default policy for this name is to pull each time."""
        return self.digest is None and self.tag == DEFAULT_TAG

    def on_localhost(self) -> Reference:
        """Return the name that Podman gives to a local build of a short name."""
        return Reference("localhost", self.written or self.repository, self.tag, self.digest)

    def off_localhost(self) -> Reference:
        """Return the name without the ``localhost/`` that Podman puts before a short one."""
        if self.registry != "localhost":
            return self
        return Reference.parse(str(self).removeprefix("localhost/"))

    @property
    def untagged(self) -> Reference:
        """The name alone, which is its repository's."""
        return attrs.evolve(self, tag=None, digest=None)

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self._suffix}"


def is_registry(text: str) -> bool:
    """Whether the text can be the first part of an image's name: a host, maybe with a port."""
    return _REGISTRY.fullmatch(text) is not None


def pinned(name: str) -> Digest | None:
    """Return the manifest digest that a full name demands (``repo@sha256:…``), or None."""
    _, at, digest = name.partition("@")
    return Digest.parse(digest) if at else None


def image_id_prefix(text: str) -> str | None:
    """Return the hexadecimal digits when the text may be an image ID, whole or shortened."""
    match = _IMAGE_ID.fullmatch(text)
    return match.group(1) if match else None


def is_full_image_id(text: str) -> bool:
    """Whether the text can only be an image ID: Kubernetes allows no such name."""
    digits = image_id_prefix(text)
    return digits is not None and (len(digits) == _FULL_ID_LENGTH or text.startswith("sha256:"))


def name_or_id(text: str) -> Reference | None:
    """Parse what an image is asked for by; None when it can only be an image ID.

    Raises:
        ReferenceInvalid: when it is neither a name nor an image ID.

    """
    return None if is_full_image_id(text) else Reference.parse(text)


def _digest(text: str, whole: str) -> Digest:
    try:
        return Digest.parse(text)
    except ArchiveInvalid as error:
        raise _invalid(whole, f"{text!r} is not a digest") from error


def _split_registry(name: str) -> tuple[str, str, str]:
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    registry, path = (first, rest) if is_host else (DEFAULT_REGISTRY, name)
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in path:
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


def _invalid(text: str, why: str) -> ReferenceInvalid:
    return ReferenceInvalid(
        f"not an image name: {text!r:.300}: {why}",
        hint="write it as in a pod spec: [REGISTRY/]REPOSITORY[:TAG], for example app:v1",
    )
