"""Examples in docstrings: every public name has one that runs, or a reason why not."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import pes_rl
import pes_rl.agents
import pes_rl.envs

ROOT = Path(__file__).parents[1]
ROOMS = {"pes_rl": pes_rl, "pes_rl.agents": pes_rl.agents, "pes_rl.envs": pes_rl.envs}
PUBLIC = [f"{room}.{name}" for room, module in ROOMS.items() for name in module.__all__]

WITHOUT = {
    "pes_rl.__version__": "a text",
    "pes_rl.Evaluation": "made by the trainer; the example of Callback reads one",
    "pes_rl.Run": "a protocol: what a callback gets, as in the example of Callback",
    "pes_rl.load_optimizer": "needs a run of seconds; examples/learned_optimizer.py",
    "pes_rl.agents.AGENTS": "a table",
    "pes_rl.agents.AGENT_NAMES": "a table",
    "pes_rl.agents.AskTellState": "made by AskTell, and opaque",
    "pes_rl.agents.AdaptiveSigma": "wraps an estimator; docs/adaptive_sigma.md",
    "pes_rl.agents.AdaptiveSigmaState": "made by AdaptiveSigma, and opaque",
    "pes_rl.agents.Estimator": "a protocol; examples/custom_estimator.py",
    "pes_rl.agents.PerturbingEstimator": "a protocol; examples/custom_estimator.py",
    "pes_rl.agents.Report": "made by estimators, whose examples read one",
    "pes_rl.agents.UnrollRequest": "made by AskTell, whose example reads one",
    "pes_rl.envs.Clock": "made by rollouts, whose examples read one",
    "pes_rl.envs.EngineLost": "an error",
    "pes_rl.envs.HostEnvironment": "a protocol of eleven members; tests/helpers",
    "pes_rl.envs.Particles": "made by rollouts, whose examples have them",
    "pes_rl.envs.Rollout": "a protocol; DeviceRollout and HostRollout have examples",
}


class LastLines(doctest.OutputChecker):
    """Compares the last lines printed: before the result, a run tells its progress."""

    def check_output(self, want, got, optionflags):
        lines = got.splitlines(keepends=True)
        last = "".join(lines[len(lines) - want.count("\n") :]) if want else ""
        return super().check_output(want, last, optionflags)


def modules_with_examples():
    for floor in ("agents", "envs", "pes_rl"):
        for path in sorted((ROOT / floor).rglob("*.py")):
            if ">>>" in path.read_text():
                dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield dotted if floor == "pes_rl" else f"pes_rl.{dotted}"


def get(dotted):
    room, _, name = dotted.rpartition(".")
    return getattr(ROOMS[room], name)


def examples_of(dotted):
    thing = get(dotted)
    # A jitted function is no function, but has the docstring and module of one.
    module = importlib.import_module(thing.__module__)
    return doctest.DocTestParser().get_doctest(
        inspect.getdoc(thing) or "", dict(vars(module)), dotted, None, 0
    )


def run_examples(test):
    report: list[str] = []
    runner = doctest.DocTestRunner(LastLines(), verbose=False)
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `my_run`, which the example of `train` leaves."""
    path = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        run_examples(examples_of("pes_rl.train"))
    return path


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in WITHOUT])
def test_a_public_name_has_an_example_that_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    test = examples_of(name)
    assert test.examples, f"{name} needs an example in its docstring"
    if name != "pes_rl.train":  # It has run for the fixture.
        run_examples(test)


def test_a_name_without_an_example_is_public_and_has_none():
    assert set(WITHOUT) <= set(PUBLIC)
    for name in WITHOUT:
        if not isinstance(get(name), str | tuple | dict):
            assert not examples_of(name).examples, name


def test_an_example_that_is_wrong_fails():
    test = doctest.DocTestParser().get_doctest(
        ">>> print('progress'); 1 + 1\n3\n", {}, "wrong", None, 0
    )
    with pytest.raises(AssertionError, match=r"Expected:\s+3\s+Got:\s+progress\s+2"):
        run_examples(test)


@pytest.mark.parametrize("module", sorted(set(modules_with_examples())))
def test_the_other_examples_of_a_module_run(module):
    public = {get(name) for name in PUBLIC if callable(get(name))}
    names = vars(importlib.import_module(module))
    for name, thing in names.items():
        if getattr(thing, "__module__", None) == module and thing not in public:
            for test in doctest.DocTestFinder().find(thing, name, globs=dict(names)):
                run_examples(test)
