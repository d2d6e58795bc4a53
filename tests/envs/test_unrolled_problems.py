"""Unrolled problems beside loops in NumPy, and beside published numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

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


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def unroll(problem: Any, theta: Any, length: int, seed: int = 0) -> tuple[Any, Any]:
    """The first state of an episode and the losses of its first steps."""
    key = jax.random.key(seed)
    theta = jnp.asarray(theta)

    def step(state: Any, _: None) -> Any:
        state, loss, ended = problem.step(theta, state)
        return state, (loss, ended)

    @jax.jit
    def run() -> Any:
        first = problem.init(key)
        return first, lax.scan(step, first, length=length)[1]

    first, (losses, ended) = run()
    assert not ended.any()
    return first, np.asarray(losses)


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


# Training of a classifier


def minibatches(problem: Any, state: Any, t: int) -> list[list[tuple[Any, int]]]:
    """The two of step t, image by image: (inputs, label)."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state[0]), t + 1)
    bits = np.asarray(jax.random.bits(key, (2, problem.batch_size), "uint32"))
    pixels = np.asarray(problem.images.pixels, np.float64)
    labels = np.asarray(problem.images.labels)
    training = len(labels) - len(labels) // 6
    mean, deviation = pixels[:training].mean(), pixels[:training].std()
    validation = problem.objective != "training-loss"
    batches = []
    for k in range(2):
        rows = []
        for number in bits[k]:
            row = int(number) % training
            if k == 1 and validation:
                row = training + int(number) % (len(labels) - training)
            rows.append(((pixels[row] - mean) / deviation, labels[row]))
        batches.append(rows)
    return batches


def forward(layers: Any, x: Any, masks: Any = None) -> list[Any]:
    """Input of each layer, and the logits."""
    inputs = [x]
    for i, (weights, bias) in enumerate(layers):
        x = np.array([x @ weights[:, j] + bias[j] for j in range(len(bias))])
        if i < len(layers) - 1:
            x = np.maximum(x if masks is None else x * masks[i], 0)
        inputs.append(x)
    return inputs


def loss_of(layers: Any, batch: Any, objective: str, masks: Any = None) -> float:
    losses = []
    for x, label in batch:
        logits = forward(layers, x, masks)[-1]
        if objective == "validation-accuracy":
            losses.append(-float(np.argmax(logits) == label))
        else:
            losses.append(np.log(np.exp(logits).sum()) - logits[label])
    return float(np.mean(losses))


def backward(layers: Any, batch: Any, masks: Any = None) -> list[list[Any]]:
    """Gradient of the mean cross-entropy, by hand."""
    gradient = [[np.zeros_like(w), np.zeros_like(b)] for w, b in layers]
    for x, label in batch:
        *inputs, logits = forward(layers, x, masks)
        error = np.exp(logits) / np.exp(logits).sum()
        error[label] -= 1
        for i in range(len(layers) - 1, -1, -1):
            gradient[i][0] += np.outer(inputs[i], error) / len(batch)
            gradient[i][1] += error / len(batch)
            # A unit that is masked or below 0 passes nothing on, and its input is 0.
            error = (layers[i][0] @ error) * (inputs[i] > 0)
    return gradient


def as_lists(network: Any) -> list[list[Any]]:
    return [[np.array(part) for part in layer] for layer in network]


# Their losses differ from rounding only: pixels are standardised in float32 statistics.
CLOSE = 1e-5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "objective", ["training-loss", "validation-loss", "validation-accuracy"]
)
def test_lr_schedule_is_the_recurrence(objective):
    problem = LearningRateSchedule(
        hidden_sizes=(4, 3), batch_size=5, objective=objective
    )
    theta = np.log([0.05, 500.0])
    state, losses = unroll(problem, theta, 3)
    layers = as_lists(state[2])
    momenta = [[np.zeros_like(part) for part in layer] for layer in layers]
    for t in range(3):
        learn, test = minibatches(problem, state, t)
        gradient = backward(layers, learn)
        rate = 0.05 / (1 + t / 5000) ** 500
        for i in range(len(layers)):
            for part in range(2):
                slope = gradient[i][part] + 1e-10 * layers[i][part]
                momenta[i][part] = 0.9 * momenta[i][part] + slope
                layers[i][part] -= rate * momenta[i][part]
        assert losses[t] == pytest.approx(loss_of(layers, test, objective), rel=CLOSE)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["published", "rates-and-momenta"])
def test_mlp_hyperparameters_are_the_recurrence(variant):
    problem = MLPHyperparameters(variant=variant, hidden_units=6, batch_size=5)
    theta = np.array(problem.init_theta(jax.random.key(3)))
    theta[: len(theta) // 3] += 4  # rates large enough to see
    state, losses = unroll(problem, theta, 3)
    layers = as_lists(state[2])
    momenta = [[np.zeros_like(part) for part in layer] for layer in layers]
    blocks = 2 * len(layers)
    share = 1 / (1 + np.exp(-theta[blocks:]))
    masks = None
    if variant == "published":
        widths = [int(6 * s) for s in share[blocks:]]
        assert len(widths) == 5
        masks = [np.arange(6) < width for width in widths]
    assert len(theta) == {"published": 29, "rates-and-momenta": 20}[variant]
    for t in range(3):
        learn, test = minibatches(problem, state, t)
        gradient = backward(layers, learn, masks)
        for i in range(len(layers)):
            for part in range(2):
                b = 2 * i + part
                momenta[i][part] = share[b] * momenta[i][part] + gradient[i][part]
                layers[i][part] -= np.exp(theta[b]) * momenta[i][part]
        expected = loss_of(layers, test, "validation-loss", masks)
        assert losses[t] == pytest.approx(expected, rel=CLOSE)


def test_only_what_has_a_derivative_says_so():
    assert not MLPHyperparameters().differentiable
    assert not LearningRateSchedule(objective="validation-accuracy").differentiable
    assert LearningRateSchedule(objective="validation-loss").differentiable


@pytest.mark.usefixtures("float64")
def test_learned_optimizer_is_the_recurrence():
    problem = LearnedOptimizer(hidden_sizes=(3,), batch_size=5)
    theta = np.array(problem.init_theta(jax.random.key(4)))
    assert theta.size == 1762  # as published
    theta[-2:] = 30.0, 500.0  # steps large enough to see
    state, losses = unroll(problem, theta, 3)
    shapes = [(19, 32), (32,), (32, 32), (32,), (32, 2), (2,)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = np.split(theta, ends[:-1])
    parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    optimizer = list(zip(parts[::2], parts[1::2], strict=True))
    decays = [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999]
    scales = [1, 3, 10, 30, 100, 300, 1000, 3000, 1e4, 3e4, 1e5]
    layers = as_lists(state[2])
    means = [[[0 * part for _ in decays] for part in layer] for layer in layers]
    for t in range(3):
        learn, test = minibatches(problem, state, t)
        gradient = backward(layers, learn)
        for i, layer in enumerate(layers):
            for j, weights in enumerate(layer):
                slope = gradient[i][j]
                for m, decay in enumerate(decays):
                    mean = means[i][j][m]
                    means[i][j][m] = decay * mean + (1 - decay) * slope
                features = [
                    kind / np.sqrt((kind**2).mean() + 1e-5)
                    for kind in [slope, weights, *means[i][j]]
                ]
                time = [np.tanh(t / scale - 1) for scale in scales]
                change = np.zeros_like(weights)
                for place in np.ndindex(weights.shape):
                    x = np.array([kind[place] for kind in features] + time)
                    direction, size = forward(optimizer, x)[-1]
                    change[place] = 0.001 * direction * np.exp(0.001 * size)
                layer[j] = weights - change
        assert losses[t] == pytest.approx(
            loss_of(layers, test, "training-loss"), rel=CLOSE
        )


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
