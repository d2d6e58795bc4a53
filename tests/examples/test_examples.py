"""The examples run as they stand, with a smaller budget where they are slow."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, *options, cwd):
    command = [sys.executable, str(EXAMPLES / name), *options]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(line):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", line)]


def test_a_policy_is_trained_and_used(tmp_path):
    output = run("train_and_use_policy.py", "--total-timesteps", "30000", cwd=tmp_path)
    returns = numbers(output.splitlines()[-1].split(":")[1])
    assert len(returns) == 5
    assert min(returns) > 100  # An untrained pendulum falls after some 20 steps.


def test_a_custom_environment_is_learned(tmp_path):
    output = run("custom_environment.py", "--total-timesteps", "60000", cwd=tmp_path)
    before, after = numbers(output.splitlines()[-1])
    assert before < -15
    assert after > -8


def test_a_custom_jax_environment_is_learned(tmp_path):
    output = run(
        "custom_jax_environment.py", "--total-timesteps", "60000", cwd=tmp_path
    )
    before, after = numbers(output.splitlines()[-1])
    assert before < -15
    assert after > -8


def test_a_custom_estimator_is_biased_where_pes_is_not(tmp_path):
    best, pes, own = map(
        lambda line: numbers(line)[0],
        run("custom_estimator.py", cwd=tmp_path).splitlines(),
    )
    assert pes == pytest.approx(best, rel=0.1)
    assert own > 1.5 * best


def test_every_example_stands_in_the_table():
    table = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"[{path.name}]({path.name})" in table
