"""Problems that train a network, beside loops in NumPy that train the same one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from unrolling import unroll

from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.envs.unrolled.lr_schedule import LearningRateSchedule
from pes_rl.envs.unrolled.mlp_hyperparameters import MLPHyperparameters
from pes_rl.envs.unrolled.update_rule import UpdateRule


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


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("hidden_sizes", [(), (3,), (3, 2)])
def test_derivatives_of_an_update_rule_are_those_of_differences(hidden_sizes):
    """Forwards and backwards; two of its layers have derivatives of their own."""
    rule = UpdateRule(hidden_sizes)
    random = np.random.default_rng(0)
    weights, gradient = (
        [jnp.asarray(random.normal(size=shape)) for shape in ((2, 3), (2,))]
        for _ in range(2)
    )

    def update(theta, scale):
        scaled = jax.tree.map(lambda g: scale * g, gradient)
        state = rule.update(theta, rule.init(weights), scaled, weights)[1]
        return rule.update(theta, state, gradient, weights)[0]

    theta = jnp.asarray(random.normal(size=len(rule.parameter_names)))
    theta = theta.at[-2:].set(jnp.array([30.0, 500.0]))  # steps large enough to see
    check_grads(jax.jit(update), (theta, jnp.float64(2)), 1, rtol=1e-5, atol=1e-7)


def test_random_search_has_the_published_bounds():
    """Wider than those that the initial hyperparameters are drawn from."""
    problem = MLPHyperparameters(hidden_units=6, batch_size=5)
    low, high = problem.search_bounds
    for bound, rate, share in ((low, 1e-8, 0.01), (high, 10.0, 0.999)):
        assert bound.shape == (29,)
        np.testing.assert_allclose(np.exp(bound[:12]), rate, rtol=1e-5)
        np.testing.assert_allclose(1 / (1 + np.exp(-bound[12:])), share, rtol=1e-5)
    first = problem.init_theta(jax.random.key(0))
    assert ((low < first) & (first < high)).all()
