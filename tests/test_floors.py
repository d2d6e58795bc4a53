"""The order of the floors and rooms: imports go down, and never in a circle."""

from pathlib import Path

import pytest
from imports import (
    FLOORS,
    LEVELS,
    count_upward,
    describe_circles,
    find_files,
    find_upward,
    floor_of,
    read_imports,
    room_arrows,
    room_of,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def imports():
    return read_imports(ROOT)


def test_imports_go_down(imports):
    assert len(imports) > 300
    assert find_upward(imports) == []


def test_no_file_imports_itself_in_a_circle(imports):
    assert file_circles(imports) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_no_room_imports_itself_in_a_circle(imports, floor):
    assert room_circles(imports, floor) == []
    assert count_upward(room_arrows(imports, floor)) == 0


def file_circles(imports):
    return describe_circles([one for one in imports if one.at_import], str)


def room_circles(imports, floor):
    inside = [
        one for one in imports if floor_of(one.source) == floor_of(one.target) == floor
    ]
    return describe_circles(inside, room_of)


def test_every_room_has_its_level_and_they_are_few():
    modules = [name for name in find_files(ROOT) if floor_of(name) == "pes_rl"]
    rooms = {room_of(name) for name in modules} - {"__init__"}
    assert rooms == {room for level in LEVELS for room in level}
    assert len(rooms) <= 25


PLANTED = {
    "envs/engine.py": "from pes_rl.agents import estimator",
    "agents/estimator.py": "def f():\n    import pes_rl.runtime.progress",
    "pes_rl/runtime/progress.py": "import pes_rl.training.trainer",
    "pes_rl/config/settings.py": "from pes_rl.runtime import progress",
    "pes_rl/training/trainer.py": "from pes_rl import compare",
    "pes_rl/attic/old.py": "import pes_rl.config.settings",
    "pes_rl/compare.py": "from pes_rl.studies import one",
    "pes_rl/studies/one.py": "import pes_rl.studies.two",
    "pes_rl/studies/two.py": "from . import one\nimport json",
    "envs/ray/pool.py": "from ..rollout import base",
    "envs/rollout/base.py": "def f():\n    from pes_rl.envs.ray import pool",
}


def test_what_is_planted_is_found(tmp_path):
    """So that the tests above can fail."""
    for name, text in PLANTED.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    imports = read_imports(tmp_path)
    found = "\n".join(find_upward(imports))
    for message in (
        "envs.engine imports pes_rl.agents.estimator; envs is below agents",
        "agents.estimator imports pes_rl.runtime.progress; agents is below pes_rl",
        "runtime is not above training",
        "config is not above runtime",
        "pes_rl.training.trainer imports pes_rl.compare; a command is imported by",
        "pes_rl.attic.old imports pes_rl.config.settings; give the room a level",
    ):
        assert message in found
    assert len(found.splitlines()) == 6
    (circle,) = file_circles(imports)
    assert "circle of pes_rl.studies.one, pes_rl.studies.two; move what" in circle
    assert "one.py:1: pes_rl.studies.one imports pes_rl.studies.two" in circle
    assert "two.py:1: pes_rl.studies.two imports pes_rl.studies.one" in circle
    (circle,) = room_circles(imports, "envs")  # One import of it stands in a function.
    assert "circle of ray, rollout; move what" in circle
    assert "base.py:2: pes_rl.envs.rollout.base imports pes_rl.envs.ray.pool" in circle
    assert count_upward(room_arrows(imports, "envs")) == 1
