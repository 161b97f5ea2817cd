"""Values that are used as keys, and public values, are hashable."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import attrs
import pytest

import imgload
from imgload.oci.document import Descriptor, Manifest
from tests.unit.archives import Image
from tests.unit.samples import sourced

_KEYED = {"dict", "Mapping", "set", "frozenset", "Set", "MutableMapping", "defaultdict", "Counter"}
_UNHASHABLE = (Mapping, MutableMapping, MutableSequence, MutableSet)
_NAMES = [m.name for m in walk_packages(imgload.__path__, "imgload.") if "__main__" not in m.name]


@cache
def parsed(module: ModuleType) -> list[ast.AST]:
    return list(ast.walk(ast.parse(Path(str(module.__file__)).read_text())))


def keys_in(module: ModuleType) -> Iterator[str]:
    """Yield the names of types that a module uses as keys, as in ``dict[Key, …]``."""
    for node in parsed(module):
        match node:
            case ast.Subscript(ast.Name(generic), ast.Tuple([inner, *_]) | inner):
                named = ast.walk(inner) if generic in _KEYED else ()
                yield from (n.id for n in named if isinstance(n, ast.Name))


def keys() -> set[type]:
    """Return imgload's classes that are used as keys, and its public hashable classes."""
    public = {getattr(imgload, name) for name in imgload.__all__}
    frozen = public - {imgload.Delivery, imgload.Order}
    classes = {value for value in frozen if value.__hash__ is not None}
    for module in map(import_module, _NAMES):
        scope = {**vars(module), **_imported_for_types(module)}
        classes |= {scope[name] for name in keys_in(module) if name in scope}
    return {value for value in classes if inspect.isclass(value) and attrs.has(value)}


def _imported_for_types(module: ModuleType) -> dict[str, Any]:
    """Return the names that a module imports only for annotations."""
    imports = [node for node in parsed(module) if isinstance(node, ast.ImportFrom)]
    return {
        alias.name: getattr(import_module(node.module), alias.name, None)
        for node in imports
        if node.module and node.module.startswith("imgload")
        for alias in node.names
    }


def unhashable(cls: Any, seen: set[Any]) -> Iterator[str]:
    """Yield the unhashable fields that are part of a class's hash."""
    if cls in seen or cls.__hash__ is object.__hash__:
        return
    seen.add(cls)
    if cls.__hash__ is None:
        yield cls.__name__
        return
    scope = {**vars(import_module(cls.__module__))}
    scope |= _imported_for_types(import_module(cls.__module__))
    hints = typing.get_type_hints(cls, scope)
    for field in attrs.fields(cls):
        if field.eq if field.hash is None else field.hash:
            for kind in _types_in(hints[field.name]):
                if issubclass(kind, _UNHASHABLE):
                    yield f"{cls.__name__}.{field.name}"
                elif attrs.has(kind):
                    yield from unhashable(kind, seen)


def _types_in(hint: Any) -> Iterator[type]:
    """Yield the classes in a type, but not those inside an unhashable one."""
    origin = typing.get_origin(hint)
    if inspect.isclass(origin) and issubclass(origin, _UNHASHABLE):
        yield origin
    elif origin is None and inspect.isclass(hint):
        yield hint
    else:
        for inner in typing.get_args(hint):
            yield from _types_in(inner)


@pytest.mark.parametrize("cls", sorted(keys(), key=str), ids=str)
def test_a_key_is_hashable_with_all_nested_fields(cls: type) -> None:
    assert list(unhashable(cls, set())) == []


def test_an_image_with_annotated_layers_can_be_a_key() -> None:
    """Annotations still count in comparisons of `Image` and `Descriptor`."""
    image = Image()
    manifest = Manifest.parse(image.manifest)
    notes = [attrs.evolve(layer, annotations={"a": "b"}) for layer in manifest.layers]
    annotated = attrs.evolve(manifest, layers=tuple(notes))
    images = [
        attrs.evolve(sourced("app:v1", image.image_id), manifest=variant)
        for variant in (manifest, annotated)
    ]
    assert len(dict.fromkeys([*images, *images])) == len(images)
    plain = Descriptor("m", image.image_id, 1)
    assert plain != attrs.evolve(plain, annotations={"a": "b"})
