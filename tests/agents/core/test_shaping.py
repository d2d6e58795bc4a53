"""Changes to an estimate that are opt-in."""

import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import es_gradient, normalize_by_return_std


def draw(num_pairs=4, sigma=0.3):
    generator = np.random.default_rng(0)
    loss = generator.normal(size=2 * num_pairs)
    half = sigma * generator.normal(size=(num_pairs, 1, 3))
    perturbation = np.concatenate([half, -half], axis=1).reshape(-1, 3)
    return loss, perturbation


def test_the_normalised_gradient_is_that_of_ars():
    """1 / (P std(L)) sum_i (e_i / sigma) L_i, with the population's std."""
    sigma, num_pairs = 0.3, 4
    loss, perturbation = draw(num_pairs, sigma)
    expected = np.zeros(3)
    for loss_i, e_i in zip(loss, perturbation, strict=True):
        expected += e_i / sigma * loss_i
    mean = sum(loss) / len(loss)
    std = np.sqrt(sum((loss_i - mean) ** 2 for loss_i in loss) / len(loss))
    expected /= num_pairs * std

    loss32 = jnp.asarray(loss, jnp.float32)
    parts = es_gradient(loss32, jnp.asarray(perturbation, jnp.float32), sigma)
    normalised = normalize_by_return_std(parts.sum(0), loss32, sigma)
    np.testing.assert_allclose(normalised, expected, rtol=1e-5)


def test_the_scale_and_offset_of_the_losses_do_not_matter():
    loss, perturbation = draw()
    results = []
    for scale, offset in [(1.0, 0.0), (100.0, 7.0)]:
        changed = jnp.asarray(scale * loss + offset, jnp.float32)
        parts = es_gradient(changed, jnp.asarray(perturbation, jnp.float32), 0.3)
        results.append(normalize_by_return_std(parts.sum(0), changed, 0.3))
    np.testing.assert_allclose(*results, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1000.1])
@pytest.mark.parametrize("num_particles", [2, 6, 30])
def test_equal_losses_give_zero(value, num_particles):
    """Also where rounding makes their computed standard deviation positive."""
    loss = jnp.full(num_particles, value, jnp.float32)
    assert not normalize_by_return_std(jnp.ones(3), loss, 0.3).any()
