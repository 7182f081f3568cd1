"""Imports go downward, never in circles, and importing gno costs little."""

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gno"

# What each room may import: the plan of the house. "" is gno/__init__.py; some are single files.
BELOW = {
    "lazy": set(),
    "workers": set(),
    "mesh": {"workers"},
    "uncertain": set(),
    "progress": set(),
    "kernels": set(),
    "graph": {"mesh", "kernels", "lazy", "workers"},
    "nn": {"mesh", "kernels", "graph"},
    "physics": {"mesh", "graph"},
    "post": {"mesh", "physics", "uncertain", "progress"},
    "train": {"mesh", "graph", "nn", "physics", "post", "uncertain", "progress", "workers", "lazy"},
    "uq": {"mesh", "graph", "nn", "physics", "post", "train", "uncertain", "workers"},
    "inspection": {"mesh", "graph"},
    "demo": {"mesh", "graph", "post", "train"},
    "commands": {"mesh", "post", "train", "uq", "inspection", "demo", "progress"},
    "cli": {"commands", ""},
    "__main__": {"cli"},
    "": {"mesh", "train", "lazy"},
}
HEAVY = {"gmsh", "lightning", "lightning_fabric", "matplotlib", "pyvista", "skfem", "torch", "vtkmodules"}


def modules(package: Path) -> dict[str, ast.Module]:
    """Every module of a package by name, parsed."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.AST, known: set[str], *, for_types: bool) -> set[str]:
    """The known modules that are imported anywhere in a tree, inside functions too; for types only if wanted."""
    names: list[str] = []
    skipped = {id(inner) for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not for_types and id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports inside gno are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in known else str(node.module) for name in inner]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            names += [a.value for a in node.args if isinstance(a, ast.Constant)]
    return {name for name in names if name in known}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def offences(trees: dict[str, ast.Module]) -> list[str]:
    """Imports that go up or sideways."""
    found = []
    for name, tree in trees.items():
        for other in sorted(imports(tree, set(trees), for_types=True)):
            if room(other) not in BELOW[room(name)] | {room(name)}:
                found.append(f"{name} imports {other}")
    return found


def circle(trees: dict[str, ast.Module]) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    graph = {name: imports(tree, set(trees), for_types=False) for name, tree in trees.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def names_in(tree: ast.Module) -> set[str]:
    """What a module defines or imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def unknown_names(tree: ast.AST, trees: dict[str, ast.Module]) -> list[str]:
    """Names that are imported from modules of ours that have none such."""
    wanted = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in trees]
    return [
        f"{node.module}.{alias.name}"
        for node in wanted
        for alias in node.names
        if alias.name not in names_in(trees[str(node.module)]) and f"{node.module}.{alias.name}" not in trees
    ]


def test_scripts_import_what_there_is():
    trees, root = modules(PACKAGE), PACKAGE.parent
    scripts = [file for folder in ("benchmarks", "examples", "meshes") for file in (root / folder).rglob("*.py")]
    assert len(scripts) > 20
    missing = {file.name: unknown_names(ast.parse(file.read_text(encoding="utf-8")), trees) for file in scripts}
    assert {name: names for name, names in missing.items() if names} == {}


def test_imports_go_downward():
    assert offences(modules(PACKAGE)) == []


def test_there_are_no_circles():
    assert circle(modules(PACKAGE)) == []


def test_every_room_is_in_the_plan():
    assert {room(name) for name in modules(PACKAGE)} <= set(BELOW)
    order = tuple(TopologicalSorter(BELOW).static_order())
    assert order.index("physics") < order.index("train") and "nn" not in BELOW["physics"]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("gno.mesh.io", "def f():\n    from gno.graph import build_sample"),
        ("gno.post.show", "import gno.nn.operator"),
        ("gno.physics", "from gno.nn import NeuroScale"),
        ("gno.nn.config", "import importlib\nimportlib.import_module('gno.train')"),
    ],
)
def test_an_import_upward_is_seen(module, line):
    trees = {**modules(PACKAGE), module: ast.parse(line)}
    assert any(found.startswith(f"{module} imports") for found in offences(trees))


def test_a_circle_is_seen_and_one_for_types_is_none():
    there, back = ast.parse("from gno.mesh.two import b"), "from gno.mesh.one import a"
    assert circle({"gno.mesh.one": there, "gno.mesh.two": ast.parse(f"def f():\n    {back}")})
    assert not circle({"gno.mesh.one": there, "gno.mesh.two": ast.parse(f"if TYPE_CHECKING:\n    {back}")})


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import gno", set()),
        ("import gno.cli", set()),
        ("import gno.inspection, gno.graph, gno.train.draft", set()),
        ("import gno.train.run, gno.post", {"torch"}),
    ],
)
def test_importing_is_light(statement, allowed):
    code = f"import sys\n{statement}\nprint(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == allowed


def test_a_machine_without_graphics_libraries_is_told_what_to_install(tmp_path):
    (tmp_path / "gmsh.py").write_text("raise OSError('libGLU.so.1: cannot open shared object file')")
    command = [sys.executable, "-m", "gno.cli", "demo", "-o", str(tmp_path / "demo"), "--plates", "4"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "libGLU.so.1" in done.stderr and "apt-get install libgl1 libglu1-mesa" in done.stderr
