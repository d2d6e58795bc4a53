"""Policies against loops, on JAX and NumPy arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import Policy
from pes_rl.agents.activations import ACTIVATIONS

pytestmark = pytest.mark.user_compilation

LOW, HIGH = (-0.5, -0.25), (0.5, 1.0)
OBSERVATION_SIZE = 3
HIDDEN_SIZES = [(), (4,), (4, 5)]

every_policy = pytest.mark.parametrize(
    "policy",
    [
        Policy(OBSERVATION_SIZE, LOW, HIGH, hidden_sizes=sizes, bias=bias, clip=clip)
        for sizes in HIDDEN_SIZES
        for bias in (True, False)
        for clip in (True, False)
    ],
    ids=lambda p: f"{p.hidden_sizes}-bias={p.bias}-clip={p.clip}",
)


def draw(policy, num_particles=6):
    generator = np.random.default_rng(0)
    theta = generator.normal(size=(num_particles, policy.num_parameters))
    observation = generator.normal(size=(num_particles, OBSERVATION_SIZE))
    return theta.astype(np.float32), observation.astype(np.float32)


def loops(policy, theta, observation):
    """theta holds, layer by layer, W in row order and then b."""
    numbers = iter(theta.tolist())
    x = observation.tolist()
    sizes = [*policy.hidden_sizes, policy.action_size]
    for layer, size in enumerate(sizes):
        y = [sum(next(numbers) * x_i for x_i in x) for _ in range(size)]
        if policy.bias:
            y = [y_i + next(numbers) for y_i in y]
        x = [np.tanh(y_i) for y_i in y] if layer + 1 < len(sizes) else y
    assert next(numbers, None) is None
    if policy.clip:
        x = [min(max(x_i, lo), hi) for x_i, lo, hi in zip(x, LOW, HIGH, strict=True)]
    return np.array(x)


@pytest.mark.parametrize(
    ("hidden_sizes", "bias", "expected"),
    [
        ((), False, 6),
        ((), True, 8),
        ((4,), False, 12 + 8),
        ((4,), True, 12 + 4 + 8 + 2),
        ((4, 5), True, 12 + 4 + 20 + 5 + 10 + 2),
    ],
)
def test_num_parameters_counts_weights_and_biases(hidden_sizes, bias, expected):
    policy = Policy(OBSERVATION_SIZE, LOW, HIGH, hidden_sizes=hidden_sizes, bias=bias)
    assert policy.num_parameters == expected
    assert policy.action_size == 2


@every_policy
def test_actions_are_those_of_loops(policy):
    theta, observation = draw(policy)
    actions = policy.act(theta, observation)
    assert actions.shape == (6, 2)
    for action, *arguments in zip(actions, theta, observation, strict=True):
        np.testing.assert_allclose(action, loops(policy, *arguments), atol=1e-5)


@every_policy
def test_a_batch_is_its_rows_one_by_one(policy):
    theta, observation = draw(policy)
    actions = policy.act(theta, observation)
    for i, action in enumerate(actions):
        one = policy.act(theta[i], observation[i])
        assert one.shape == (2,)
        np.testing.assert_allclose(action, one, rtol=1e-6, atol=1e-6)


@every_policy
def test_jax_and_numpy_agree_in_a_batch_one_by_one_and_under_vmap(policy):
    theta, observation = draw(policy)
    expected = policy.act(theta, observation)
    assert isinstance(expected, np.ndarray)

    @jax.jit
    def every_way(theta, observation):
        one = policy.act(theta[0], observation[0])
        batch = policy.act(theta, observation)
        return one, batch, jax.vmap(policy.act)(theta, observation)

    one, *batches = every_way(theta, observation)
    np.testing.assert_allclose(one, expected[0], rtol=1e-5, atol=1e-5)
    for actions in batches:
        assert isinstance(actions, jax.Array)
        assert actions.dtype == jnp.float32
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


def test_clipping_keeps_actions_within_their_own_bounds_and_changes_no_others():
    clipped = Policy(OBSERVATION_SIZE, LOW, HIGH)
    free = Policy(OBSERVATION_SIZE, LOW, HIGH, clip=False)
    theta, observation = draw(clipped, num_particles=200)
    actions, unbounded = (p.act(theta, observation) for p in (clipped, free))
    for action, low, high in [(0, *LOW[:1], *HIGH[:1]), (1, *LOW[1:], *HIGH[1:])]:
        assert actions[:, action].min() == low
        assert actions[:, action].max() == high
        inside = (unbounded[:, action] > low) & (unbounded[:, action] < high)
        assert inside.any()
        np.testing.assert_array_equal(
            actions[inside, action], unbounded[inside, action]
        )
    assert unbounded.min() < -1
    assert unbounded.max() > 1


@pytest.mark.parametrize("hidden_sizes", HIDDEN_SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_first_theta_acts_zero_with_hidden_weights_of_unit_gain(hidden_sizes, bias):
    policy = Policy(OBSERVATION_SIZE, LOW, HIGH, hidden_sizes=hidden_sizes, bias=bias)
    theta = policy.init(jax.random.key(0))
    assert theta.shape == (policy.num_parameters,)
    assert theta.dtype == jnp.float32
    assert not policy.act(theta, jnp.ones(OBSERVATION_SIZE)).any()
    if not hidden_sizes:
        assert not theta.any()
        return
    other = policy.init(jax.random.key(1))
    first = slice(0, OBSERVATION_SIZE * hidden_sizes[0])
    assert (theta[first] != other[first]).all()


def test_the_first_hidden_weights_have_a_variance_of_one_over_fan_in():
    policy = Policy(25, LOW, HIGH, hidden_sizes=(400,))
    weights = np.asarray(policy.init(jax.random.key(0)))[: 25 * 400]
    # Five standard errors of a standard deviation of 10 000: probability 6e-7.
    assert weights.std() == pytest.approx(0.2, abs=5 * 0.2 / np.sqrt(2 * 10_000))


@pytest.mark.parametrize("hidden_sizes", [(0,), (32, -1)])
def test_layers_without_units_are_refused(hidden_sizes):
    with pytest.raises(ValueError, match=r"hidden_sizes=.* at least 1 unit; use"):
        Policy(OBSERVATION_SIZE, LOW, HIGH, hidden_sizes=hidden_sizes)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_flax_in_jax_and_numpy(name):
    linen = pytest.importorskip("flax.linen")
    x = np.linspace(-100, 100, 4001, dtype=np.float32)
    expected = getattr(linen, name)(x)
    for own in (ACTIVATIONS[name](x), ACTIVATIONS[name](jnp.asarray(x))):
        assert own.dtype == np.float32
        np.testing.assert_allclose(own, expected, rtol=1e-6, atol=1e-6)
    policy = Policy(1, (-200.0,), (200.0,), (1,), bias=False, activation=name)
    theta = np.ones((len(x), 2), np.float32)
    np.testing.assert_allclose(
        policy.act(theta, x[:, None])[:, 0], expected, rtol=1e-6, atol=1e-6
    )


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"'gelu' is unknown; use one of: tanh, relu"):
        Policy(OBSERVATION_SIZE, LOW, HIGH, activation="gelu")


def test_squashed_actions_are_tanh_scaled_to_the_bounds():
    policy = Policy(OBSERVATION_SIZE, LOW, HIGH, squash=True)
    free = Policy(OBSERVATION_SIZE, LOW, HIGH, clip=False)
    theta, observation = draw(policy, num_particles=200)
    actions, output = (p.act(theta, observation) for p in (policy, free))
    middle, half = np.array([0.0, 0.375]), np.array([0.5, 0.625])
    np.testing.assert_allclose(actions, middle + half * np.tanh(output), atol=1e-6)
    on_device = policy.act(jnp.asarray(theta), jnp.asarray(observation))
    np.testing.assert_allclose(on_device, actions, atol=1e-6)
    far = policy.act(100 * theta, observation)
    assert (far >= np.array(LOW)).all()
    assert (far <= np.array(HIGH)).all()


def test_actions_without_bounds_are_not_squashed():
    with pytest.raises(ValueError, match=r"not all of them finite; use squash_actions"):
        Policy(OBSERVATION_SIZE, (-np.inf, 0.0), (1.0, 1.0), squash=True)
