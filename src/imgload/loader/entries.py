"""An image in a list, and its options."""

from __future__ import annotations

import attrs

from imgload.core.arguments import optional_string, require_flags, require_strings
from imgload.core.errors import UsageError
from imgload.loader.prepare import Request
from imgload.oci.reference import parse_unless_id

_OPTION = "an option of an image"


def _text(value: object) -> str | None:
    return optional_string(value, _OPTION)


def _texts(values: object) -> tuple[str, ...]:
    return require_strings(values, _OPTION)


@attrs.frozen
class ImageEntry:
    """An image in a list, and its options; those of the run apply where it has none.

    Args:
        name: its name or image ID; None for all images of an archive, which is the `source`.
        source: ``docker``, ``podman``, an engine's URL, or the path of an archive.
        tag: its name on the nodes, instead of its own.
        cluster: one or several names.
        nodes: as for `imgload.load`.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        required: whether it is an error that no source has it, instead of a note.

    Raises:
        ReferenceInvalid: if a name is invalid.
        UsageError: if an option has a wrong value, or there is neither a name nor a source.

    """

    name: str | None = attrs.field(default=None, converter=_text)
    source: str | None = attrs.field(default=None, converter=_text)
    tag: str | None = attrs.field(default=None, converter=_text)
    cluster: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    nodes: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    platform: str | None = attrs.field(default=None, converter=_text)
    required: bool = True

    def __attrs_post_init__(self) -> None:
        require_flags(required=self.required)
        if not (self.name or self.source):
            raise UsageError("an image of a list needs a name, or the path of an archive")
        Request(self.name or (), self.tag, platform=self.platform)  # refuses wrong values

    @property
    def name_on_nodes(self) -> str:
        """Its name as on the nodes; empty if its source determines that."""
        name = self.tag or self.name
        reference = parse_unless_id(name) if name else None
        return reference.record if reference else ""
