"""Each room imports only from those above it, and each vendor library has one importer."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ppe_jupyter.node.__main__ import PROGRAMS

PACKAGE = Path(__file__).parent.parent / "ppe_jupyter"
LAYERS = [
    "errors",
    "person",
    "settings",
    "catalog",
    "node",
    "proxy",
    "ssh",
    "delivery",
    "cloud",
    "localcloud",
    "remote",
]
LAYERS += ["files", "maps", "sessions", "session_info", "runs", "host"]
LAYERS += ["held", "provenance", "equipment", "guests", "limits", "cluster", "accounts", "keeping"]
LAYERS += ["manager", "verbs", "overview", "frontends"]
APART = {
    "cloud": {"localcloud"},
    "localcloud": {"cloud", "ssh"},
    "remote": {"cloud", "localcloud"},
}
# The rooms of a folder, each of which imports only from those before it and from the files beside them.
CLOUD = ["ec2", "keeping", "planning", "launching", "changing"]
NODE = [
    "wire",
    "lifetime",
    "machine",
    "cells",
    "files",
    "r",
    "ranks",
    "maps",
    "sessions",
    "runs",
    "setting_up",
]
LOCALCLOUD = ["machines", "ec2"]
REMOTE = ["values", "line", "sessions", "ranks", "files"]
FRONTENDS = ["rstudio", "panel", "actions", "notebook", "server"]
SOLE_IMPORTER = {
    # Here; and on nodes, with their own credentials.
    "boto3": ("cloud/ec2/session.py", "node/files/s3.py", "node/runs/termination.py"),
    "paramiko": "ssh/",
    "rpy2": "remote/values/local_r.py",
    "moto": "localcloud",
}


def imports(path: Path, *, of_types: bool = True) -> set[str]:
    """Absolute names of what a module imports, at any depth of its code; perhaps not what only its types name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found = set()
    tree = ast.parse(path.read_text())
    checking = [
        each for each in tree.body if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"
    ]
    left_out = set() if of_types else {each for block in checking for each in block.body}
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: -node.level]) + "." if node.level else ""
            found |= {f"{base}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names}
    return found


def module_of(name: str) -> str:
    """The module that an imported name is, or is in; "" for what is not the package's."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name


BUILDERS = {PACKAGE / "data" / "build_catalog.py"}  # run by developers, not shipped
MODULES = sorted(set(PACKAGE.rglob("*.py")) - BUILDERS)
NAMES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in MODULES
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports(path):
        head, _, rest = name.partition(".")
        if (
            head == "ppe_jupyter"
            and room in LAYERS
            and (other := rest.split(".")[0]) in LAYERS
            and other != room
        ):
            assert LAYERS.index(other) < LAYERS.index(room), f"{room} must not import {name}"
            assert other not in APART.get(room, set()), f"{room} must not import {name}"
            assert room != "node", "node/ imports nothing else of the package"
        if head in SOLE_IMPORTER:
            assert str(path.relative_to(PACKAGE)).startswith(SOLE_IMPORTER[head]), f"{path} imports {head}"


@pytest.mark.parametrize(
    ("home", "rooms"),
    [
        ("cloud", CLOUD),
        ("node", NODE),
        ("localcloud", LOCALCLOUD),
        ("remote", REMOTE),
        ("frontends", FRONTENDS),
    ],
)
def test_rooms_within_rooms_are_in_order(home: str, rooms: list[str]) -> None:
    assert {path.parent.name for path in (PACKAGE / home).glob("*/__init__.py")} == set(rooms)
    for at, room in enumerate(rooms):
        for path in (PACKAGE / home / room).glob("*.py"):
            others = {name.split(".")[2] for name in imports(path) if name.startswith(f"ppe_jupyter.{home}.")}
            assert others.isdisjoint(rooms[at + 1 :]), f"{path} imports from a later room"


def test_no_imports_go_in_a_circle() -> None:
    """Also within functions. Types may: a whole makes its parts, which name it (a panel its forms)."""
    graph = {
        name: {module_of(each) for each in imports(path, of_types=False)} - {name, ""}
        for name, path in NAMES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_commands_name_programs_of_the_nodes() -> None:
    for module in PROGRAMS.values():
        assert (PACKAGE / "node" / f"{module.replace('.', '/')}.py").is_file()
    code = "".join(path.read_text() for path in [*MODULES, *PACKAGE.rglob("*.R")])
    named = set(
        re.findall(r"python3 (?:-\w+ )?(?:~\S*/\.ppe/node|\{(?:delivery\.)?FOLDER\}) ([a-z]\w+)", code)
    )
    assert "setup" in named and named <= PROGRAMS.keys()
