"""The sign and the shift between rewards and losses."""

from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.envs.rollout.environment import loss_from_reward, return_from_loss

pytestmark = pytest.mark.user_compilation

NUM_STEPS = 4


@pytest.mark.parametrize("shift", [0.0, 1.5, -0.25])
@pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray])
def test_the_return_undoes_the_sign_and_the_shift_of_the_losses(asarray, shift):
    """On numbers that float32 adds exactly; the kind and dtype of array are kept."""
    rewards: Any = asarray(np.arange(-6.0, 6.0, dtype=np.float32).reshape(NUM_STEPS, 3))
    losses = loss_from_reward(rewards, shift)
    np.testing.assert_array_equal(losses, shift - np.asarray(rewards))
    returns = return_from_loss(losses.sum(0), NUM_STEPS, shift)
    np.testing.assert_array_equal(returns, rewards.sum(0))
    for result in (losses, returns):
        assert result.dtype == np.float32
        assert isinstance(result, type(rewards))


def test_without_a_shift_the_return_is_minus_the_loss_whatever_the_steps():
    losses = np.array([0.1, -3e7, 0.0], np.float32)
    np.testing.assert_array_equal(return_from_loss(losses), -losses)
    np.testing.assert_array_equal(return_from_loss(losses, 17, 0.0), -losses)


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_a_reward_shift_is_a_loss_of_every_simulated_step(driver):
    """Of those only: not of steps that a particle waits, nor of one that diverges."""
    half = 2 * jax.random.normal(jax.random.key(5), (4, 1, counting.NUM_PARAMETERS))
    thetas = jnp.concatenate([half, -half], axis=1).reshape(8, counting.NUM_PARAMETERS)
    segments = []
    for shift in (0.0, 1.5):
        rollout = counting.ROLLOUTS[driver](
            20, diverged_loss=2.5, diverges_at=3, reward_shift=shift
        )
        particles = rollout.reset(jax.random.key(3), 4)
        segments.append(rollout.unroll(particles, thetas, 20, single_episode=True)[1])
    plain, shifted = segments
    counted = np.asarray(plain.simulated & ~plain.diverged)
    np.testing.assert_array_equal(shifted.loss - plain.loss, 1.5 * counted)
    np.testing.assert_array_equal(shifted.ended, plain.ended)
    assert plain.diverged.any()
    assert not plain.simulated.all()
