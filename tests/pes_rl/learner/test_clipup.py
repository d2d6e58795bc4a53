"""ClipUp beside the paper's algorithm, and what its step does not depend on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.config.train_config import make_config
from pes_rl.learner.clipup import scale_by_clipup
from pes_rl.learner.optimizer import OptimizerConfig

GRADIENTS = np.random.default_rng(3).normal(size=(60, 5))
GRADIENTS *= np.tile([[1], [30], [1e-3]], (20, 1))


def steps(gradients: np.ndarray, **options: Any) -> np.ndarray:
    """What is subtracted from theta in each update, divided by the learning rate."""
    transform: Any = scale_by_clipup(**options)
    state = transform.init(jnp.zeros(gradients.shape[1]))
    taken = []
    for gradient in jnp.asarray(gradients, jnp.float32):
        step, state = transform.update(gradient, state)
        taken.append(step)
    return np.array(taken)


def papers_steps(
    gradients: np.ndarray, rate: float, max_speed: float, momentum: float
) -> np.ndarray:
    """Algorithm 2 of the paper, as it is written there."""
    velocity, taken = np.zeros(gradients.shape[1]), []
    for gradient in gradients:
        velocity = momentum * velocity + rate * gradient / np.linalg.norm(gradient)
        if np.linalg.norm(velocity) > max_speed:
            velocity = max_speed * velocity / np.linalg.norm(velocity)
        taken.append(velocity)
    return np.array(taken)


@pytest.mark.parametrize(
    ("rate", "max_speed", "momentum"), [(0.1, 0.2, 0.9), (0.3, 0.35, 0.5), (1, 9, 0.0)]
)
def test_the_papers_algorithm(rate, max_speed, momentum):
    config = OptimizerConfig(
        "clipup", rate, clipup_max_speed=max_speed, clipup_momentum=momentum
    )
    transform: Any = config.transform()
    gradients = jnp.asarray(GRADIENTS, jnp.float32)
    state = transform.init(jnp.zeros(5))
    expected = papers_steps(GRADIENTS, rate, max_speed, momentum)
    for gradient, step in zip(gradients, expected, strict=True):
        direction, state = transform.update(gradient, state)
        np.testing.assert_allclose(rate * direction, step, rtol=2e-4, atol=1e-5)


def test_the_scale_of_the_gradient_changes_nothing():
    for scale in (2.0**-30, 2.0**70):
        np.testing.assert_array_equal(steps(scale * GRADIENTS), steps(GRADIENTS))


@pytest.mark.parametrize("size", [1e-36, 1e-30, 1e36])
def test_no_square_overflows_or_vanishes(size):
    step = steps(np.array([[size, 0.0, -size]]))[0]
    np.testing.assert_allclose(step, [0.5**0.5, 0, -(0.5**0.5)], rtol=1e-6)


def test_a_constant_direction_reaches_the_limit_in_the_time_of_the_momentum():
    """Without the limit the speed is the geometric sum (1 - 0.9^t) / 0.1."""
    lengths = np.linalg.norm(steps(np.ones((20, 4)), max_speed=5.0), axis=1)
    unlimited = (1 - 0.9 ** np.arange(1, 21)) / 0.1
    np.testing.assert_allclose(lengths, np.minimum(unlimited, 5.0), rtol=1e-5)
    assert lengths[5] < 5.0 == pytest.approx(lengths[-1])


def test_a_gradient_of_zero_lets_the_velocity_decay():
    gradients = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    expected = np.outer([1, 0.9, 0.81], [0.6, 0.8])
    np.testing.assert_allclose(steps(gradients), expected, rtol=1e-6)


def test_rotated_gradients_give_rotated_steps():
    """Unlike Adam's, the direction does not depend on the axes."""
    matrix = np.random.default_rng(4).normal(size=(5, 5))
    rotation, _ = np.linalg.qr(matrix)
    np.testing.assert_allclose(
        steps(GRADIENTS @ rotation), steps(GRADIENTS) @ rotation, atol=1e-4
    )


def test_the_limit_is_twice_the_learning_rate_and_decays_with_it():
    config = OptimizerConfig("clipup", 0.25, "linear")
    transform: Any = config.transform()
    state = transform.init(jnp.zeros(3))
    direction = jnp.zeros(3)
    for _ in range(10):
        direction, state = transform.update(jnp.array([0.0, 7.0, 0.0]), state)
    for progress, longest in ((0.0, 0.5), (0.6, 0.2), (1.0, 0.0)):
        rate = config.learning_rate_at(jnp.float32(progress))
        np.testing.assert_allclose(rate * direction, [0, longest, 0], rtol=1e-5)


def test_settings():
    config = make_config("swimmer", "pes", optimizer="clipup", clipup_max_speed=0.2)
    assert (config.clipup_max_speed, config.clipup_momentum) == (0.2, 0.9)
    with pytest.raises(ValueError, match="no meaning for optimizer=sgd; drop it"):
        make_config("swimmer", "pes", clipup_max_speed=0.2)
    with pytest.raises(ValueError, match=r"clipup_momentum=1\.0 must be at least 0"):
        make_config("swimmer", "pes", optimizer="clipup", clipup_momentum=1.0)
    with pytest.raises(ValueError, match="clipup_max_speed=0 must be above 0"):
        make_config("swimmer", "pes", optimizer="clipup", clipup_max_speed=0)


def test_under_jit_as_without_it():
    transform: Any = scale_by_clipup()
    state = transform.init(jnp.zeros(5))
    gradient = jnp.asarray(GRADIENTS[0], jnp.float32)
    plain, _ = transform.update(gradient, state)
    jitted, _ = jax.jit(transform.update)(gradient, state)
    np.testing.assert_allclose(plain, jitted, rtol=1e-6)
