"""Permitted imports between modules, as documented in docs/architecture.md."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.detect import RUNTIMES

PACKAGE = Path(imgload.__file__).parent
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()

LAYERS = "core oci engines clusters registry sources transports loader tools imgload cli __main__"
"""Folders, bottom up: each may import only those before it, also for types and by text."""
PURE = (
    "oci/",
    "core/errors.py",
    "core/units.py",
    "loader/plan.py",
    "loader/report.py",
    "loader/events.py",
)
DOES_IO = {
    *("asyncio", "fcntl", "ftplib", "glob", "http", "io", "mmap", "multiprocessing", "os"),
    *("pathlib", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys"),
    *("tarfile", "tempfile", "threading", "time", "urllib", "zipfile"),
}
HOMES = {
    "docker": "engines/",
    "podman": "engines/",
    "click": "cli/",
    "rich": "cli/",
    "yaml": "core/yaml.py",
    "platformdirs": "core/state.py",
    "backports": "core/compression.py",
    "compression": "core/compression.py",
    "isal": "core/compression.py",
}
"""The only module or folder that may import an external package; attrs is used everywhere."""
WHEN_USED = ("docker", "podman", "rich", "yaml", "backports", "compression", "isal")
DISTRIBUTIONS = {"yaml": "pyyaml", "backports": "backports.zstd"}
NOT_OURS = {"compression", "pytest"}
"""A part of Python from 3.14 on; pytest imports its plugin."""


@attrs.frozen
class Import:
    """An imported name; `typing` if only type checkers see it, `lazy` inside a function."""

    name: str
    typing: bool = False
    lazy: bool = False

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


def imports_in(source: str) -> list[Import]:
    return list(_imports(ast.parse(source), Import("")))


def _imports(node: ast.AST, where: Import) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (attrs.evolve(where, name=alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "relative imports are not used here"
        yield from (attrs.evolve(where, name=f"{node.module}.{a.name}") for a in node.names)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for statement in node.body:
            yield from _imports(statement, attrs.evolve(where, typing=True))
        for statement in node.orelse:
            yield from _imports(statement, where)
    else:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = attrs.evolve(where, lazy=True)
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"imgload(\.\w+)+", text):
            yield attrs.evolve(where, name=f"{text}.*", lazy=True)
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, where)


FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {name: imports_in(path.read_text()) for name, path in FILES.items()}


def module_of(file: str) -> str:
    """Return a file's module: `oci/tar.py` is `imgload.oci.tar`."""
    dotted = f"imgload/{file.removesuffix('.py')}".replace("/", ".")
    return dotted.removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def imported_modules(file: str) -> set[str]:
    """Return imgload's modules that a file imports: at run time, for types, or by text."""
    names = {i.name for i in IMPORTS[file] if i.top == "imgload"}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def top_folder(module: str) -> str:
    """Return the top folder or module: `oci` for `imgload.oci.tar`."""
    return [*module.split("."), "imgload"][1]


LAYER = {name: layer for layer, name in enumerate(LAYERS.split())}


def lies_in(file: str, home: str) -> bool:
    return file.startswith(home) if home.endswith("/") else file == home


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b", [Import("a.b")]),
        ("from a.b import c, d", [Import("a.b.c"), Import("a.b.d")]),
        ("def f():\n    import a", [Import("a", lazy=True)]),
        (
            "async def f():\n    try:\n        import a\n    except E: pass",
            [Import("a", lazy=True)],
        ),
        ("class C:\n    import a", [Import("a")]),
        ("try:\n    import a\nexcept ImportError:\n    import b", [Import("a"), Import("b")]),
        (
            "if TYPE_CHECKING:\n    import a\nelse:\n    import b",
            [Import("a", typing=True), Import("b")],
        ),
        ("if typing.TYPE_CHECKING:\n    from a import b", [Import("a.b", typing=True)]),
        ("if x:\n    import a", [Import("a")]),
    ],
)
def test_every_kind_of_import_is_detected(source: str, expected: list[Import]) -> None:
    """The other tests depend on it."""
    assert imports_in(source) == expected


def test_every_folder_has_a_layer() -> None:
    """At most ten, in addition to `imgload` and `imgload.__main__`."""
    assert {top_folder(module) for module in MODULES} == set(LAYER)
    assert len(LAYER) <= 12


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_modules_import_only_lower_layers(file: str) -> None:
    """Engines do not import nodes, image names no engines, and nothing imports the command."""
    own = top_folder(module_of(file))
    for module in imported_modules(file):
        other = top_folder(module)
        assert other == own or LAYER[other] < LAYER[own], f"{file} imports {module}"


def test_imports_have_no_cycles() -> None:
    """So that the modules can be read in one order."""
    graph = {module_of(f): imported_modules(f) - {module_of(f)} for f in FILES}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == MODULES


@pytest.mark.parametrize("file", [f for f in FILES if any(lies_in(f, p) for p in PURE)])
def test_pure_modules_do_no_io(file: str) -> None:
    """They can be tested without files, processes and networks."""
    assert {i.top for i in IMPORTS[file]} & DOES_IO == set()
    calls = [
        n.func for n in ast.walk(ast.parse(FILES[file].read_text())) if isinstance(n, ast.Call)
    ]
    called = {call.id for call in calls if isinstance(call, ast.Name)}
    assert called & {"open", "print", "input", "exec", "eval", "__import__"} == set()


@pytest.mark.parametrize(("package", "home"), HOMES.items())
def test_each_external_package_is_imported_in_one_place(package: str, home: str) -> None:
    """It can be replaced in one place, which also maps its errors."""
    users = {file for file, imports in IMPORTS.items() if package in {i.top for i in imports}}
    assert users
    assert [file for file in users if not lies_in(file, home)] == []


@pytest.mark.parametrize("package", WHEN_USED)
def test_rarely_needed_packages_are_imported_lazily(package: str) -> None:
    """The start-up time is part of every load."""
    uses = [i for imports in IMPORTS.values() for i in imports if i.top == package]
    assert all(i.lazy or i.typing for i in uses)


@pytest.mark.parametrize("sdk", ["docker", "podman"])
def test_an_engines_module_is_imported_when_the_engine_is_opened(sdk: str) -> None:
    """By one function; the package exports it for type checkers."""
    module = f"imgload.engines.{sdk}"
    users = [(f, i.lazy) for f in FILES for i in IMPORTS[f] if i.name.startswith(f"{module}.")]
    assert [u for u in users if u[0] != "__init__.py"] == [("engines/discovery/discover.py", True)]


def test_a_runtime_is_registered_in_one_place() -> None:
    """The table in `detect.py`; `imgload images` and `prune` find their module by its name."""
    default, *others = RUNTIMES
    folder = "imgload.tools.inventory"
    for runtime in others:
        modules = {f"imgload.clusters.nodes.{runtime}", f"{folder}.{runtime}"}
        users = [file for file in FILES if imported_modules(file) & modules]
        assert "clusters/nodes/detect.py" in users
        outside = [file for file in users if not file.startswith("clusters/nodes/")]
        assert outside == [f"tools/inventory/{runtime}.py"]
    for runtime in (default, *others):
        assert {"take_inventory", "remove_images"} <= vars(
            import_module(f"{folder}.{runtime}")
        ).keys()
    names = {node.runtime_name for node in NodeRuntime.__subclasses__()}
    assert names - {""} == set(RUNTIMES)


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[^\w.-]", text)[0].lower() for text in project["dependencies"]}


def test_imported_packages_are_the_declared_dependencies() -> None:
    """All declared packages are imported: an unused package is only a risk."""
    tops = {i.top for imports in IMPORTS.values() for i in imports}
    foreign = tops - set(sys.stdlib_module_names) - {"imgload"} - NOT_OURS
    assert {DISTRIBUTIONS.get(top, top) for top in foreign} == dependencies()


def test_each_dependency_is_named_on_the_page_with_its_reason() -> None:
    """In docs/architecture.md, which names no other packages."""
    table = PAGE.partition("## Dependencies")[2]
    rows = re.findall(r"^\| ([^|]+) \| [^|]{4,} \|$", table, re.MULTILINE)
    named = {name for row in rows for name in row.split(", ") if not name.startswith("-")}
    assert named == dependencies()


def test_the_page_names_every_folder_and_this_test() -> None:
    """New contributors start there."""
    folders = {str(path.parent.relative_to(PACKAGE)) for path in FILES.values()} - {".", "tools"}
    assert [folder for folder in folders if f"| `{folder}/` |" not in PAGE] == []
    assert f"`{Path(__file__).relative_to(ROOT)}`" in PAGE


def test_files_named_on_the_page_exist() -> None:
    """All files and folders in its table."""
    rows = re.findall(r"^\| (`[\w./`, ]+`) \|", PAGE, re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([\w./]+)`", row)]
    assert len(paths) > 8
    assert [path for path in paths if not (PACKAGE / path).exists()] == []
