"""Study files and sweep spaces that are wrong: one line names file and field."""

import time

import pytest

from pes_rl.studies.study import Study, StudyRun, read_study
from pes_rl.studies.sweep_space import read_space

STUDY = """
env = "swimmer"
[[arm]]
agent = "pes"
seeds = [0]
"""
SPACE = """
env = "swimmer"
agent = "pes"
seeds = [0]
[search]
sigma = { low = 0.1, high = 0.5 }
"""


def refusal(read, path, text):
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


SEEDS = [
    ("3", "seeds is 3 and must be a list of whole numbers"),
    ("[0, 2.5]", "seeds is [0, 2.5] and must be a list of whole numbers from 0"),
    ("[0, -1]", "seeds is [0, -1] and must be a list of whole numbers from 0"),
    ('["a"]', "seeds is ['a'] and must be a list of whole numbers from 0"),
    ("[true]", "seeds is [True] and must be a list of whole numbers from 0"),
    ("{ a = 1 }", "seeds is {'a': 1} and must be a list of whole numbers"),
    ('"0-99999999"', "seeds has 100,000,000 seeds and must have 100,000 at most"),
    ('"0-999999999999999999"', "and must have 100,000 at most"),
    (f'"0-{"9" * 5000}"', "is no range"),
    ('"-3-4"', "seeds='-3-4' is no range"),
    ('"9-3"', "seeds='9-3' has its first seed above its last; write \"3-9\""),
    ('"\\u0663-\\u0669"', "is no range"),  # digits, but not of ASCII
    ("[nan]", "seeds is nan and must be a finite number"),
    ("[99999999999999999999]", "and must be a whole number of 64 bits"),
]


@pytest.mark.parametrize(("seeds", "message"), SEEDS)
@pytest.mark.parametrize(("read", "text"), [(read_study, STUDY), (read_space, SPACE)])
def test_seeds(read, text, seeds, message, tmp_path):
    text = text.replace("seeds = [0]", f"seeds = {seeds}")
    assert message in refusal(read, tmp_path / "a.toml", text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[[arm]]",
            "[arm]",
            "arm is {'agent': 'pes', 'seeds': [0]} and must be tables",
        ),
        (STUDY, "arm = 3", "arm is 3 and must be tables, each under the line [[arm]]"),
        (STUDY, "arm = [3]", "arm is [3] and must be tables"),
        ('"swimmer"', "3", "arm 1: env is 3 and must be a text, or a list of texts"),
        ('"swimmer"', "[]", "arm 1: env is [] and must be a text, or a list of texts"),
        ('"swimmer"', '["swimmer", 3]', "env is ['swimmer', 3] and must be a text"),
        ('"pes"', '["pes"]', "arm 1: agent is ['pes'] and must be a text"),
        ('"pes"', '"pes"\nname = 3', "arm 1: name is 3 and must be a text"),
        ('"pes"', '"pes"\nname = ""', "arm 1: name is '' and must be a text"),
        ("env", "title = 3\nenv", "title is 3 and must be a text"),
        ("env", "title = [[1]]\nenv", "title is [[1]] and must be a text"),
        ("env", "num_pairs = 2.5\nenv", "arm 1: num_pairs=2.5 must be a whole number"),
        ("env", "sigma = inf\nenv", "sigma is inf and must be a finite number"),
        ('"pes"', '"pes"\nsigma = nan', "arm.sigma is nan and must be a finite number"),
        ('"pes"', '"pes"\nsigma = 1979-05-27', "must be a number or None"),
        ('"pes"', '"pes"\nsigma = { a = 1 }', "sigma={'a': 1} must be a number"),
        ('"pes"', '"pes"\nseed = 3', "seed is 3; write seeds = [3] instead"),
        ('"pes"', '"pes"\nvmap_seeds = 1', "vmap_seeds is 1 and must be true or false"),
        ("[[arm]]", "[other]\n[[arm]]", "unknown option 'other'"),
        ("[[arm]]", f"x = {'[' * 5000}\n[[arm]]", "cannot be read"),
        (
            "[[arm]]",
            f"{'.'.join('x' * 5000)} = nan\n[[arm]]",
            "must be a finite number",
        ),
    ],
)
def test_a_bad_study(old, new, message, tmp_path):
    shown = refusal(read_study, tmp_path / "a.toml", STUDY.replace(old, new))
    assert message in shown


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[search]\nsigma =", "search =", "write a list of choices"),
        ("[search]", "search = 3", "search is 3 and must be a table"),
        ('"swimmer"', '["swimmer"]', "env is ['swimmer'] and must be a text"),
        ('"pes"', "3", "agent is 3 and must be a text"),
        ("env", "title = 3\nenv", "title is 3 and must be a text"),
        ("env", "num_pairs = 2.5\nenv", "num_pairs=2.5 must be a whole number"),
        ("env", "seed = 5\nenv", "seed is 5; write seeds = [5] instead"),
        ("env", "sigma = 1.0\nenv", "sigma is searched and has the value 1.0 as well"),
        ("sigma =", "seed =", "seed cannot be searched"),
        ("sigma =", "agent =", "agent cannot be searched"),
        ("0.1", '"0.1"', "the search of sigma: low is '0.1' and must be a number"),
        ("0.5", "[0.5]", "the search of sigma: high is [0.5] and must be a number"),
        ("0.5", "true", "the search of sigma: high is True and must be a number"),
        ("0.5", "inf", "search.sigma.high is inf and must be a finite number"),
        ("0.1", "nan", "search.sigma.low is nan and must be a finite number"),
        ("0.5", "0.5, log = 3", "the search of sigma: log is 3 and must be true or"),
        ("0.5", '0.5, step = "a"', "step is 'a' and must be a number"),
        ("0.5", "0.5, step = 0", "step is 0 and must be above 0 and at most high"),
        ("0.5", "0.5, step = -0.1", "step is -0.1 and must be above 0"),
        ("0.5", "0.5, step = 0.9", "step is 0.9 and must be above 0 and at most"),
        ("0.5", "0.5, step = 0.1, log = true", "has log = true and a step"),
        (
            "0.1, high = 0.5",
            "1, high = 5, step = 0.5",
            "step is 0.5 and must be a",
        ),
        ("{ low = 0.1, high = 0.5 }", "[0.1, 'a']", "write choices of one kind"),
        ("{ low = 0.1, high = 0.5 }", "[1979-05-27]", "write choices of one kind"),
        ("{ low = 0.1, high = 0.5 }", "[{ a = 1 }]", "write choices of one kind"),
        ("{ low = 0.1, high = 0.5 }", "[0.1, inf]", "must be a finite number"),
        ("{ low = 0.1, high = 0.5 }", "['a', 'b']", "sigma='a' must be a number"),
        ("{ low = 0.1, high = 0.5 }", "[]", "write a list of choices"),
    ],
)
def test_a_bad_space(old, new, message, tmp_path):
    shown = refusal(read_space, tmp_path / "a.toml", SPACE.replace(old, new))
    assert message in shown


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xff\xfe")
    for read in (read_study, read_space):
        with pytest.raises(ValueError, match="cannot be read"):
            read(path)


def test_many_runs_are_compared_for_names_in_little_time(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(STUDY)
    (run,) = read_study(path).runs
    runs = tuple(StudyRun(run.arm, run.config, f"pes-s{n}") for n in range(30_000))
    start = time.perf_counter()
    assert len(Study("many", runs).runs) == 30_000
    assert time.perf_counter() - start < 5
