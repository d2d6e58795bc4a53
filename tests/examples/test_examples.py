"""The examples run as they stand, with a smaller budget where they are slow."""

import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example as a program, in this process; returns its output."""

    def run_example(name, *options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *options])
        monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        # As in a user's process.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def numbers(line):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", line)]


def test_a_policy_is_trained_and_used(run):
    output = run("train_and_use_policy.py", "--total-timesteps", "30000")
    returns = numbers(output.splitlines()[-1].split(":")[1])
    assert len(returns) == 5
    assert min(returns) > 100  # An untrained pendulum falls after some 20 steps.


def test_a_run_is_saved_loaded_and_continued_from_python(run):
    output = run("python_api.py", "--total-timesteps", "20000")
    lines = [line for line in output.splitlines() if not line.startswith("inverted")]
    evaluations = [line for line in lines if ": return " in line]
    assert len(evaluations) >= 4
    assert any(line.startswith("return of an episode: ") for line in lines)
    steps, final = numbers(lines[-1])
    assert 40_000 <= steps < 50_000
    assert final > 100  # An untrained pendulum falls after some 20 steps.


def test_a_custom_environment_is_learned(run):
    output = run("custom_environment.py", "--total-timesteps", "60000")
    before, after = numbers(output.splitlines()[-1])
    assert before < -15
    assert after > -8


def test_discrete_actions_are_learned(run):
    output = run("discrete_actions.py")
    returns = numbers(output.splitlines()[-1].split(":")[1])
    assert len(returns) == 5
    assert min(returns) >= 475  # What Gymnasium calls solved.


def test_a_custom_jax_environment_is_learned(run):
    output = run("custom_jax_environment.py", "--total-timesteps", "60000")
    before, after = numbers(output.splitlines()[-1])
    assert before < -15
    assert after > -8


def test_a_custom_estimator_is_biased_where_pes_is_not(run):
    best, pes, own = map(
        lambda line: numbers(line)[0],
        run("custom_estimator.py").splitlines(),
    )
    assert pes == pytest.approx(best, rel=0.1)
    assert own > 1.5 * best


@pytest.mark.slow
def test_a_custom_network_is_trained_and_used(run):
    pytest.importorskip("flax")
    output = run("custom_network.py", "--total-timesteps", "30000")
    returns = numbers(output.splitlines()[-1].split(":")[1])
    assert len(returns) == 5
    assert min(returns) > 80  # An untrained pendulum falls after some 20 steps.


@pytest.mark.slow
def test_a_recurrent_policy_does_what_a_linear_one_cannot(run):
    output = run("recurrent_policy.py", "--total-timesteps", "100000")
    lines = [line for line in output.splitlines() if "mean return of 20" in line]
    linear, gru = (numbers(line)[-1] for line in lines)
    assert linear < -12  # at best a spring, which swings for ever
    assert gru > -8


def test_a_loop_of_one_s_own_finds_the_best_learning_rate_on_every_seed(run):
    best, learned = map(numbers, run("own_loop.py").splitlines())
    assert len(learned) == 8
    assert learned == pytest.approx(8 * best, rel=0.15)


def test_every_example_stands_in_the_table():
    table = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"[{path.name}]({path.name})" in table


@pytest.mark.slow
def test_a_learned_optimizer_trains_another_network(run):
    output = run("learned_optimizer.py", "--total-timesteps", "100000")
    learned, adam = (numbers(line)[-2] for line in output.splitlines()[-2:])
    assert adam < 0.15
    assert learned < 0.2  # Before the first step the loss is above 0.5.
