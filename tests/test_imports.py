"""The house. Claims:

- imports go one way: `data` and `jepa` import nothing of ours, `decoder` the public names of `jepa`; only composition
  roots import more, and only composition roots import them. A room that is new is held to this too.
- no two rooms import each other in a circle.
- the method, `jepa/jepa.py` and `decoder/flow.py`, runs with torch alone: no Lightning.
- importing a room does nothing: no call stands alone at its top; every room opens with a docstring.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "jepa", "decoder")
ROOTS = {
    "jepa.cli",
    "jepa.train",
    "jepa.probe_run",
    "decoder.train",
    "decoder.train_opponents",
    "decoder.render",
    "decoder.surprise_run",
    "decoder.look",
    "decoder.demo",
    "decoder.health_page",
    "decoder.budget",
    "decoder.compare.bench",
    "decoder.compare.films",
    "decoder.compare.job",
    "decoder.compare.physics",
    "decoder.compare.plan",
    "decoder.compare.probe",
    "decoder.compare.stages",
    "decoder.compare.surprise",
}
MAY_IMPORT = {"data": {"data"}, "jepa": {"jepa"}, "decoder": {"decoder", "jepa"}}
ROOMS = {
    ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((HOUSE / package).rglob("*.py"))
}


def imports(tree: ast.AST, room: str) -> Iterator[tuple[str, list[str], bool]]:
    """(module, names, lazily?) of every import of ours, however deep in the code."""
    top = set(ast.iter_child_nodes(tree))
    package = room if ROOMS[room].name == "__init__.py" else room.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[: package.count(".") + 2 - node.level]
                module = ".".join(filter(None, [*above, module]))
            names = [alias.name for alias in node.names]
            rooms = [f"{module}.{name}" for name in names if f"{module}.{name}" in ROOMS]
            found = [(each, []) for each in rooms] + [(module, [n for n in names if f"{module}.{n}" not in ROOMS])]
        else:
            continue
        for module, names in found:
            if module.split(".")[0] in PACKAGES:
                yield module, names, node not in top


def tree_of(room: str) -> ast.Module:
    return ast.parse(ROOMS[room].read_text())


def faults(room: str, tree: ast.AST) -> list[str]:
    """What a room imports and may not."""
    found = []
    for module, names, _ in imports(tree, room):
        package, own = module.split(".")[0], room.split(".")[0]
        if room not in ROOTS and package not in MAY_IMPORT[own]:
            found.append(f"{room} imports {module}")
        if room not in ROOTS and module in ROOTS:
            found.append(f"{room} imports the composition root {module}")
        if package != own:
            found += [f"{room} imports {module}.{name}, which is private" for name in names if name.startswith("_")]
    return found


def test_imports_go_one_way() -> None:
    assert ROOTS - set(ROOMS) <= {"decoder.demo"} and len(ROOMS) > 40
    assert [fault for room in ROOMS for fault in faults(room, tree_of(room))] == []


@pytest.mark.parametrize(
    ("room", "code", "fault"),
    [
        ("data.clips", "import jepa", "data.clips imports jepa"),
        ("data.clips", "def f():\n    from jepa.grid import Grid", "data.clips imports jepa.grid"),
        ("jepa.masks", "from data import open_video", "jepa.masks imports data"),
        ("jepa.jepa", "import decoder.flow as f", "jepa.jepa imports decoder.flow"),
        ("decoder.dit", "from data.reader import open_video", "decoder.dit imports data.reader"),
        ("decoder.dit", "from jepa.probe import _linear", "decoder.dit imports jepa.probe._linear, which is private"),
        ("decoder.dit", "from decoder import train", "decoder.dit imports the composition root decoder.train"),
        ("jepa.module", "from jepa.train import pretrain", "jepa.module imports the composition root jepa.train"),
        ("data.module", "from . import clips\nfrom .errors import DataError", None),
        ("jepa.train", "from data.module import DataConfig", None),
    ],
)
def test_the_walk_finds_what_it_is_for(room: str, code: str, fault: str | None) -> None:
    assert faults(room, ast.parse(code)) == ([fault] if fault else [])


def test_no_circles() -> None:
    needs = {
        room: {m for m, _, lazy in imports(tree_of(room), room) if not lazy and m != room and m in ROOMS and "." in m}
        for room in ROOMS
    }
    done: set[str] = set()
    while len(done) < len(needs):
        ready = {room for room in needs if room not in done and needs[room] <= done}
        assert ready, f"a circle among {sorted(set(needs) - done)}"
        done |= ready


@pytest.mark.parametrize("room", ["jepa.jepa", "decoder.flow"])
def test_the_method_needs_no_lightning(room: str) -> None:
    seen, todo = set(), {room}
    while todo:
        here = todo.pop()
        seen.add(here)
        todo |= {module for module, _, _ in imports(tree_of(here), here) if module in ROOMS} - seen
    for each in seen:
        found = [node for node in ast.walk(tree_of(each)) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "lightning" not in " ".join(map(ast.unparse, found)), f"{room} reaches it by {each}"


def test_every_room_says_what_it_is() -> None:
    for room in ROOMS:
        assert ast.get_docstring(tree_of(room)), f"{room} has no docstring"
        calls = [node for node in tree_of(room).body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
        assert not calls, f"{room} does something on import, in line {calls[0].lineno}"
