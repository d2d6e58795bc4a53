"""The GRU policy against flax's `GRUCell`, on JAX and NumPy arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import GRUPolicy

LOW, HIGH, OBSERVATION_SIZE, STEPS = (-3.0, -0.25), (3.0, 1.0), 3, 6


def draw(policy, num_particles=5):
    generator = np.random.default_rng(0)
    theta = 0.5 * generator.normal(size=(num_particles, policy.num_parameters))
    observations = generator.normal(size=(STEPS, num_particles, OBSERVATION_SIZE))
    return theta.astype(np.float32), observations.astype(np.float32)


def play(policy, theta, observations):
    """Carry after all steps, and the actions of each."""
    carry = np.broadcast_to(
        policy.initial_carry(), (len(theta), sum(policy.hidden_sizes))
    )
    actions = []
    for observation in observations:
        carry, action = policy.act(theta, carry, observation)
        actions.append(action)
    return carry, np.stack(actions)


def flax_layers(policy, theta):
    """Parameters of a `GRUCell` for each layer, and weights and bias of the last."""
    inputs, at, layers = OBSERVATION_SIZE, 0, []

    def take(*shape):
        nonlocal at
        first, at = at, at + int(np.prod(shape))
        return theta[first:at].reshape(shape)

    for units in policy.hidden_sizes:
        u, w, b, c = (
            take(3, units, inputs),
            take(3, units, units),
            take(3, units),
            take(units),
        )
        of_input = {
            f"i{gate}": {"kernel": u[k].T, "bias": b[k]} for k, gate in enumerate("rzn")
        }
        of_carry = {f"h{gate}": {"kernel": w[k].T} for k, gate in enumerate("rzn")}
        of_carry["hn"]["bias"] = c
        layers.append({"params": {**of_input, **of_carry}})
        inputs = units
    last = take(policy.action_size, inputs), take(policy.action_size)
    assert at == len(theta)
    return layers, last


@pytest.mark.parametrize("hidden_sizes", [(4,), (4, 3)])
def test_carries_and_actions_are_flax(hidden_sizes):
    linen = pytest.importorskip("flax.linen")
    policy = GRUPolicy(OBSERVATION_SIZE, LOW, HIGH, hidden_sizes)
    theta, observations = draw(policy, num_particles=1)
    layers, (weights, bias) = flax_layers(policy, theta[0])
    carries = [jnp.zeros(units) for units in hidden_sizes]
    expected = []
    for observation in observations:
        x = jnp.asarray(observation[0])
        for k, (parameters, units) in enumerate(zip(layers, hidden_sizes, strict=True)):
            carries[k], x = linen.GRUCell(units).apply(parameters, carries[k], x)
        expected.append(np.clip(weights @ x + bias, LOW, HIGH))
    carry, actions = play(policy, theta, observations)
    np.testing.assert_allclose(carry[0], np.concatenate(carries), atol=1e-6)
    np.testing.assert_allclose(actions[:, 0], expected, atol=1e-6)
    assert np.ptp(actions) > 0.5


@pytest.mark.parametrize("bias", [True, False])
def test_jax_under_vmap_numpy_in_a_batch_and_rows_one_by_one_agree(bias):
    policy = GRUPolicy(OBSERVATION_SIZE, LOW, HIGH, (4, 3), bias=bias)
    theta, observations = draw(policy)
    carry, actions = play(policy, theta, observations)

    @jax.jit
    @jax.vmap
    def on_device(theta, observations):
        start = jnp.asarray(policy.initial_carry())
        return jax.lax.scan(lambda c, o: policy.act(theta, c, o), start, observations)

    ends, each = on_device(jnp.asarray(theta), jnp.asarray(observations).swapaxes(0, 1))
    np.testing.assert_allclose(ends, carry, atol=1e-6)
    np.testing.assert_allclose(each.swapaxes(0, 1), actions, atol=1e-6)
    alone, _ = policy.act(theta[2], policy.initial_carry(), observations[0, 2])
    together, _ = policy.act(theta, np.zeros((5, 7), np.float32), observations[0])
    np.testing.assert_allclose(alone, together[2], atol=1e-6)


def test_the_first_theta_acts_zero_and_its_recurrent_weights_are_orthogonal():
    policy = GRUPolicy(OBSERVATION_SIZE, LOW, HIGH, (4,))
    theta = np.asarray(policy.init(jax.random.key(0)))
    assert theta.shape == (policy.num_parameters,) == (3 * 4 * 7 + 16 + 2 * 5,)
    assert theta.dtype == np.float32
    carry, action = policy.act(theta, policy.initial_carry(), np.ones(3, np.float32))
    assert not action.any()
    assert carry.any()
    for gate in theta[36 : 36 + 48].reshape(3, 4, 4):
        np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("hidden_sizes", [(), (4, 0)])
def test_a_gru_without_units_is_refused(hidden_sizes):
    with pytest.raises(ValueError, match=r"hidden_sizes=.* at least 1 unit each; use"):
        GRUPolicy(OBSERVATION_SIZE, LOW, HIGH, hidden_sizes)
