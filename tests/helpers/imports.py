"""Reads the imports of a checkout, and what they say about its rooms.

`python tests/helpers/imports.py [CHECKOUT]` prints for each floor its rooms (files and
folders at its top level), levels, arrows between rooms, arrows that run upward in any
order of the rooms, and circles. A room imports another where any of its files does,
inside functions and for type checkers too. The lazy tables `__init__.pyi` do not count:
they import nothing.
"""

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

FLOORS = ("envs", "agents", "pes_rl")
"""From the lowest to the highest; a floor imports itself and those before it."""

COMMANDS = (
    *("train", "compare", "sweep", "plot", "evaluate", "video", "check", "bench"),
    *("analyze", "export", "hub", "__main__"),
)

LEVELS = (
    ("_version",),
    ("runtime", "config", "graphics"),
    ("run_folder", "learner"),
    ("assembly",),
    ("rendering", "benchmarks", "analysis", "exporting"),
    ("training",),
    ("studies",),
    COMMANDS,
)
"""Rooms of pes_rl, from the lowest level to the highest; a room imports lower ones."""


@dataclass(frozen=True)
class Import:
    """One file imports another.

    Attributes:
        source: The importing module, such as `pes_rl.training.trainer`.
        target: The imported one.
        file: Of the source.
        line: Of the statement.
        at_import: Whether it runs when the source is imported: it stands neither in a
            function nor under `TYPE_CHECKING`.
    """

    source: str
    target: str
    file: Path
    line: int
    at_import: bool


def find_files(root: Path) -> dict[str, Path]:
    """All modules of the three floors by dotted name, packages by their folder's."""
    found = {}
    for floor in FLOORS:
        for path in sorted((root / floor).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if floor == "pes_rl" and parts[1:2] in (("agents",), ("envs",)):
                continue  # Links to the other floors.
            names = parts if floor == "pes_rl" else ("pes_rl", *parts)
            dotted = ".".join(names).removesuffix(".__init__")
            found[dotted] = path
    return found


def read_imports(root: Path) -> list[Import]:
    """Every import of one module of the checkout by another."""
    files = find_files(root)
    found = []
    for source, path in files.items():
        tree = ast.parse(path.read_text())
        later = _not_at_import(tree)
        for node in ast.walk(tree):
            for name in _imported_names(node, source, path.name == "__init__.py"):
                target = _longest_module(name, files)
                if target is not None and target != source:
                    at_import = node not in later
                    line = getattr(node, "lineno", 0)
                    found.append(Import(source, target, path, line, at_import))
    return found


def _imported_names(node: ast.AST, source: str, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = [node.module] if node.module else []
    if node.level:
        parents = source.split(".")
        base = parents[: len(parents) - node.level + is_package] + base
    return [".".join([*base, alias.name]) for alias in node.names]


def _longest_module(name: str, files: dict[str, Path]) -> str | None:
    """The module that a dotted name belongs to; None for one of another package."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or None


def _not_at_import(tree: ast.Module) -> set[ast.AST]:
    """Statements in functions and under `if TYPE_CHECKING`."""
    later: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_check = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if is_check or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            later.update(ast.walk(node))
    return later


def floor_of(module: str) -> str:
    """The floor of a module."""
    second = module.split(".")[1:2]
    return second[0] if second and second[0] in ("envs", "agents") else "pes_rl"


def room_of(module: str) -> str:
    """The room of a module in its floor; the floor's `__init__` is its own room."""
    parts = module.split(".")[1:] if floor_of(module) == "pes_rl" else None
    parts = module.split(".")[2:] if parts is None else parts
    return parts[0] if parts else "__init__"


def room_arrows(imports: list[Import], floor: str) -> set[tuple[str, str]]:
    """(room, imported room) of one floor."""
    pairs = {
        (room_of(one.source), room_of(one.target))
        for one in imports
        if floor_of(one.source) == floor_of(one.target) == floor
    }
    return {(a, b) for a, b in pairs if a != b}


def find_circles(arrows: set[tuple[str, str]]) -> list[list[str]]:
    """Strongly connected sets of more than one node (Tarjan's algorithm)."""
    graph: dict[str, list[str]] = {}
    for source, target in sorted(arrows):
        graph.setdefault(source, []).append(target)
        graph.setdefault(target, [])
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for following in graph[node]:
            if following not in index:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], index[following])
        if low[node] == index[node]:
            at = stack.index(node)
            circle, stack[at:] = stack[at:], []
            if len(circle) > 1:
                circles.append(sorted(circle))

    for node in graph:
        if node not in index:
            visit(node)
    return circles


def describe_circles(imports: list[Import], name_of: Callable[[str], str]) -> list[str]:
    """Circles between files or rooms: the imports in each, and what to do.

    Args:
        imports: The imports that count.
        name_of: The node of a module: itself, or its room.
    """
    named = [(name_of(one.source), name_of(one.target), one) for one in imports]
    described = []
    for circle in find_circles({(a, b) for a, b, _ in named if a != b}):
        places = [
            f"{one.file}:{one.line}: {one.source} imports {one.target}"
            for a, b, one in named
            if a != b and a in circle and b in circle
        ]
        described.append(
            f"circle of {', '.join(circle)}; move what they share to a module that "
            "imports neither:\n  " + "\n  ".join(places)
        )
    return described


def count_upward(arrows: set[tuple[str, str]]) -> int:
    """Arrows that run upward in the best order of the rooms; 0 without a circle.

    It needs no table of levels, so it counts alike in any checkout. Tries every order
    of each circle's rooms, so circles have to be small.
    """
    total = 0
    for circle in find_circles(arrows):
        inside = [(a, b) for a, b in arrows if a in circle and b in circle]
        total += min(
            sum(order.index(a) < order.index(b) for a, b in inside)
            for order in permutations(circle)
        )
    return total


def count_levels(arrows: set[tuple[str, str]]) -> int:
    """Length of the longest chain of rooms, each importing the next."""
    circles = find_circles(arrows)
    name = {room: min(circle) for circle in circles for room in circle}
    merged = {(name.get(a, a), name.get(b, b)) for a, b in arrows}
    merged = {(a, b) for a, b in merged if a != b}
    depth: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in depth:
            below = [of(b) for a, b in merged if a == room]
            depth[room] = 1 + max(below, default=0)
        return depth[room]

    return max((of(room) for pair in merged for room in pair), default=1)


def level_of(room: str) -> int | None:
    """Level of a room of pes_rl; None for `__init__`, a lazy table over all."""
    for level, rooms in enumerate(LEVELS):
        if room in rooms:
            return level
    return None


def find_upward(imports: list[Import]) -> list[str]:
    """Imports against the order of floors and rooms, each with what to do."""
    wrong = []
    for one in imports:
        place = f"{one.file}:{one.line}: {one.source} imports {one.target}"
        source, target = floor_of(one.source), floor_of(one.target)
        if FLOORS.index(source) < FLOORS.index(target):
            wrong.append(
                f"{place}; {source} is below {target}: move what is shared down"
            )
        if not source == target == "pes_rl":
            continue
        rooms = room_of(one.source), room_of(one.target)
        if rooms[0] == rooms[1] or rooms[0] == "__init__":
            continue
        levels = level_of(rooms[0]), level_of(rooms[1])
        if levels[0] is None or levels[1] is None:
            wrong.append(f"{place}; give the room a level in tests/helpers/imports.py")
        elif rooms[1] in COMMANDS:
            wrong.append(f"{place}; a command is imported by nothing: use a room")
        elif levels[0] <= levels[1]:
            wrong.append(f"{place}; {rooms[0]} is not above {rooms[1]}: move it down")
    return wrong


def main(root: Path) -> None:
    """Print the table of a checkout."""
    imports = read_imports(root)
    modules = find_files(root)
    print(f"{'floor':8}{'rooms':>7}{'levels':>8}{'arrows':>8}{'upward':>8}  circles")
    for floor in FLOORS:
        arrows = room_arrows(imports, floor)
        rooms = {room_of(name) for name in modules if floor_of(name) == floor}
        rooms -= {"__init__"}
        circles = find_circles(arrows)
        print(
            f"{floor:8}{len(rooms):7}{count_levels(arrows):8}{len(arrows):8}"
            f"{count_upward(arrows):8}  {circles or 'none'}"
        )
    file_arrows = {(one.source, one.target) for one in imports if one.at_import}
    print(f"circles of files: {find_circles(file_arrows) or 'none'}")
    floors = [(floor_of(one.source), floor_of(one.target)) for one in imports]
    upward = sum(FLOORS.index(a) < FLOORS.index(b) for a, b in floors)
    print(f"imports of a higher floor: {upward}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]))
