"""Unrolled problems beside loops in NumPy, and beside published numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from unrolling import unroll

from pes_rl.envs.unrolled import PROBLEMS
from pes_rl.envs.unrolled.influence_balancing import InfluenceBalancing
from pes_rl.envs.unrolled.l2_regression import L2Regression, generate_table
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.envs.unrolled.lr_schedule import LearningRateSchedule
from pes_rl.envs.unrolled.lstm import CharacterLSTM
from pes_rl.envs.unrolled.mlp_hyperparameters import MLPHyperparameters
from pes_rl.envs.unrolled.toy_regression import ToyRegression

# Small ones, quick to compile.
SMALL: dict[str, Any] = {
    "influence-balancing": InfluenceBalancing(),
    "l2-regression": L2Regression(),
    "learned-optimizer": LearnedOptimizer(hidden_sizes=(3,), batch_size=4),
    "lr-schedule": LearningRateSchedule(hidden_sizes=(4, 3), batch_size=4),
    "lstm": CharacterLSTM(),
    "mlp-hyperparameters": MLPHyperparameters(
        variant="rates-and-momenta", hidden_units=3, batch_size=4
    ),
    "toy-regression": ToyRegression(),
}


def test_every_problem_has_a_small_one_here():
    assert set(SMALL) == set(PROBLEMS)


@pytest.mark.parametrize("name", SMALL)
def test_theta_is_named_and_losses_and_gradients_are_finite(name):
    problem = SMALL[name]
    theta = problem.init_theta(jax.random.key(1))
    assert theta.dtype == jnp.float32
    assert len(set(problem.parameter_names)) == theta.size

    def total(theta: jax.Array) -> jax.Array:
        def step(state: Any, _: None) -> Any:
            state, loss, _ = problem.step(theta, state)
            return state, loss

        return lax.scan(step, problem.init(jax.random.key(2)), length=3)[1].sum()

    loss, gradient = jax.jit(jax.value_and_grad(total))(theta)
    assert loss.dtype == jnp.float32
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert problem.differentiable
    assert np.abs(gradient).max() > 0


# Influence balancing


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("interval", [1, 3])
def test_influence_balancing_is_the_recurrence(interval):
    _, losses = unroll(InfluenceBalancing(loss_interval=interval), [0.7], 9)
    s = [1.0] * 23
    for t in range(9):
        right = [*s[1:], 0.0]
        s = [0.5 * s[i] + 0.5 * right[i] + (0.7 if i < 10 else -0.7) for i in range(23)]
        counts = (t + 1) % interval == 0
        assert losses[t] == pytest.approx((s[0] - 1) ** 2 / 2 if counts else 0.0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("theta", "loss"),
    [
        pytest.param(0.5, 8.0, id="start"),
        pytest.param(-1 / 6, 0.0, id="optimum"),
    ],
)
def test_influence_balancing_starts_and_ends_where_published(theta, loss):
    problem = InfluenceBalancing()
    _, losses = unroll(problem, [theta], problem.evaluation_steps)
    assert problem.meta_loss == "last"
    assert losses[-1] == pytest.approx(loss, abs=1e-12)


# Toy regression


@pytest.mark.usefixtures("float64")
def test_toy_regression_is_the_recurrence():
    theta = np.array([-1.0, 1.5])
    _, losses = unroll(ToyRegression(horizon=7), theta, 7)
    x0, x1 = 1.0, 1.0
    for t in range(7):
        rate = (1 - t / 7) * np.exp(theta[0]) + t / 7 * np.exp(theta[1])
        bell = np.exp(-5 * x0**2)
        slope0 = x0 / np.sqrt(x0**2 + 5) - 10 * x0 * np.sin(x1) ** 2 * bell
        slope1 = np.sin(2 * x1) * bell + 0.25 * np.sign(x1 - 100)
        x0, x1 = x0 - rate * slope0, x1 - rate * slope1
        loss = np.sqrt(x0**2 + 5) - np.sqrt(5) + 0.25 * abs(x1 - 100)
        loss += np.sin(x1) ** 2 * np.exp(-5 * x0**2)
        assert losses[t] == pytest.approx(loss, rel=1e-12)


@pytest.mark.usefixtures("float64")
def test_toy_regression_has_the_published_meta_losses():
    """At the start, and at the best of a fine grid around the published optimum."""
    fine = np.linspace(-0.005, 0.005, 41)
    best = np.stack(np.meshgrid(2.72 + fine, -3.37 + fine), -1).reshape(-1, 2)
    thetas = np.concatenate([[[-4.0, -4.0]], best])
    problem = ToyRegression()

    def meta_loss(theta: jax.Array) -> jax.Array:
        def step(state: Any, _: None) -> Any:
            return problem.step(theta, state)[:2]

        return lax.scan(step, problem.init(jax.random.key(0)), length=100)[1].sum()

    start, *around = jax.jit(jax.vmap(meta_loss))(jnp.asarray(thetas))
    assert start == pytest.approx(2487.8, abs=0.05)
    assert min(around) == pytest.approx(553.85, abs=1.0)


# L2 regression


@pytest.mark.usefixtures("float64")
def test_l2_regression_is_the_recurrence_and_settles_at_the_ridge_solution():
    problem = L2Regression()
    rows = generate_table()
    rows = np.random.default_rng(1).permutation((rows - rows.mean(0)) / rows.std(0))
    training, validation = rows[:246], rows[246:]
    theta = 1.0
    _, losses = unroll(problem, [theta], problem.evaluation_steps)
    w = np.zeros(6)
    for t in range(3):
        slope = np.exp(theta) * w
        for row in training:
            slope = slope + (row[:-1] @ w - row[-1]) * row[:-1]
        w = w - 0.001 * slope
        errors = [row[:-1] @ w - row[-1] for row in validation]
        assert losses[t] == pytest.approx(0.5 * np.sum(np.square(errors)))
    inputs, targets = training[:, :-1], training[:, -1]
    ridge = np.linalg.solve(
        inputs.T @ inputs + np.exp(theta) * np.eye(6), inputs.T @ targets
    )
    errors = validation[:, :-1] @ ridge - validation[:, -1]
    assert losses[-1] == pytest.approx(0.5 * np.sum(errors**2), rel=1e-4)


def test_a_table_file_is_read(tmp_path):
    path = tmp_path / "table.data"
    np.savetxt(path, generate_table(rows=40, columns=3))
    problem = L2Regression(table_file=str(path))
    assert problem.init(jax.random.key(0)).shape == (3,)


@pytest.mark.parametrize(
    ("content", "message"),
    [("1 2\n3 words\n", "rows of numbers"), ("1 2\n" * 20, "none of them constant")],
)
def test_a_bad_table_file_is_named(tmp_path, content, message):
    path = tmp_path / "table.data"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        L2Regression(table_file=str(path))
    with pytest.raises(ValueError, match="absent"):
        L2Regression(table_file="absent")


# LSTM


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("regime", ["text", "random", "repeated"])
def test_lstm_is_the_recurrence(regime):
    problem = CharacterLSTM(regime=regime, horizon=20)
    size = problem.vocabulary_size
    theta = 0.5 * np.random.default_rng(0).normal(size=len(problem.parameter_names))
    _, losses = unroll(problem, theta, 4)
    shapes = [(size, 5), (10, 20), (20,), (5, size), (size,)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = np.split(theta, ends[:-1])
    embedding, weights, bias, out_weights, out_bias = (
        part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
    )
    tokens, h, cell = problem._sequence, np.zeros(5), np.zeros(5)
    for t in range(4):
        before = np.concatenate([embedding[tokens[t]], h])
        sums = np.array([before @ weights[:, j] + bias[j] for j in range(20)])
        sigmoid = 1 / (1 + np.exp(-sums))
        keep = 1 / (1 + np.exp(-sums[10:15] - 1))
        cell = keep * cell + sigmoid[:5] * np.tanh(sums[5:10])
        h = sigmoid[15:] * np.tanh(cell)
        logits = h @ out_weights + out_bias
        loss = np.log(np.exp(logits).sum()) - logits[tokens[t + 1]]
        assert losses[t] == pytest.approx(loss, rel=1e-10)


def test_lstm_reads_a_text_in_three_regimes(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("t h e\nc a t _ t\n")
    characters = CharacterLSTM(text_file=str(path), horizon=5)
    assert characters.vocabulary_size == 8  # a c e h t _, space and end of line
    split: Any = {"text_file": str(path), "split_on_spaces": True, "horizon": 8}
    assert CharacterLSTM(**split).vocabulary_size == 7
    text, random, repeated = (
        CharacterLSTM(regime=regime, **split)._sequence
        for regime in ("text", "random", "repeated")
    )
    assert text.tolist() == [6, 5, 4, 0, 3, 2, 6, 1, 6]
    assert len(set(random.tolist())) > 1
    assert repeated.tolist() == [6] * 9
    with pytest.raises(ValueError, match="use 9 or less"):
        CharacterLSTM(**{**split, "horizon": 10})


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xfa"])
def test_a_bad_text_file_is_named(tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"text\.txt"):
        CharacterLSTM(text_file=str(path))
    with pytest.raises(ValueError, match="absent"):
        CharacterLSTM(text_file="absent")
