"""Whatever a study or a space holds, it is read or refused in a line with its name."""

import copy

from hypothesis import given, strategies as st
from properties import DATES, TEXTS, VALUES, as_file, bounded

from pes_rl.studies.study import Study, read_study
from pes_rl.studies.sweep_space import Space, read_space

STUDY = {
    "title": "a study",
    "env": "swimmer",
    "num_pairs": 4,
    "arm": [
        {"name": "a", "agent": "pes", "seeds": [0, 1], "sigma": 0.3},
        {"agent": "es", "seeds": "0-3", "env": ["swimmer", "hopper"]},
    ],
}
SPACE = {
    "title": "a space",
    "env": "swimmer",
    "agent": "pes",
    "seeds": [0],
    "search": {
        "sigma": {"low": 0.1, "high": 0.5, "log": True},
        "num_pairs": {"low": 2, "high": 8, "step": 2},
        "truncation_length": [25, 50],
    },
}
NAMES = st.sampled_from(
    [
        *("title", "env", "agent", "seeds", "seed", "arm", "search", "vmap_seeds"),
        *("sigma", "num_pairs", "hidden_sizes", "logdir", "name"),
        *("low", "high", "log", "step"),
    ]
)
MORE = st.sampled_from(["0-4", "pes", "swimmer", [0], [1, 2], 0.2, 8, True])
CHANGES = st.lists(
    st.tuples(st.integers(0, 9), NAMES | TEXTS, MORE | VALUES | DATES),
    min_size=1,
    max_size=3,
)


def tables(value):
    """The tables in a file's content, the outermost first."""
    parts = value.values() if isinstance(value, dict) else value
    found = [value] if isinstance(value, dict) else []
    for part in parts:
        if isinstance(part, dict | list):
            found += tables(part)
    return found


def changed(content, changes):
    content = copy.deepcopy(content)
    for where, name, value in changes:
        among = tables(content)
        among[where % len(among)][name] = value
    return content


def check(read, kind, path, content):
    path.write_text(as_file(content), "utf-8")
    try:
        assert isinstance(read(path), kind)
    except ValueError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return False
    return True


def test_the_contents_that_are_changed_are_read(tmp_path):
    assert check(read_study, Study, tmp_path / "a.toml", STUDY)
    assert check(read_space, Space, tmp_path / "a.toml", SPACE)


@bounded(250)
@given(CHANGES)
def test_changed_studies(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "study.toml"
    check(read_study, Study, path, changed(STUDY, changes))


@bounded(250)
@given(CHANGES)
def test_changed_spaces(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "space.toml"
    check(read_space, Space, path, changed(SPACE, changes))


@bounded(60)
@given(st.dictionaries(NAMES | TEXTS, MORE | VALUES, max_size=6))
def test_files_of_anything(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "anything.toml"
    check(read_study, Study, path, content)
    check(read_space, Space, path, content)
