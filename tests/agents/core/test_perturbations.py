"""What the perturbing estimators share: their draws, and the noise seen in halves."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import antithetic_perturbations, episode_noise, orthogonal_rows
from pes_rl.agents.core import perturbations
from pes_rl.agents.core.perturbations import draw_antithetic
from pes_rl.agents.core.random_normals import _product, normal_rows, uniform_rows
from pes_rl.agents.core.report import MATMUL_THRESHOLD, signal_to_noise
from pes_rl.agents.nres import episode_perturbations
from pes_rl.agents.random_search import _draw

pytestmark = pytest.mark.user_compilation


def test_perturbations_come_in_adjacent_antithetic_pairs():
    perturbation = antithetic_perturbations(jax.random.key(0), 5000, 3, 0.2)
    assert perturbation.shape == (10_000, 3)
    np.testing.assert_array_equal(perturbation[0::2], -perturbation[1::2])
    assert len(np.unique(np.abs(perturbation))) > 14_900
    # Five standard errors of a standard deviation and of a mean of 15 000 normals:
    # probability 6e-7 each.
    positive = np.asarray(perturbation[0::2])
    assert positive.std() == pytest.approx(0.2, abs=5 * 0.2 / np.sqrt(2 * 15_000))
    assert abs(positive.mean()) < 5 * 0.2 / np.sqrt(15_000)


@pytest.mark.parametrize(("rows", "size"), [(5, 1), (3, 4), (4, 4), (7, 3)])
def test_orthogonal_rows_are_gram_schmidts_with_their_lengths_kept(rows, size):
    noise = np.random.default_rng(0).normal(size=(rows, size))
    expected = noise.copy()
    for i in range(rows):
        for before in expected[i - i % size : i]:
            expected[i] -= before * (before @ expected[i]) / (before @ before)
        expected[i] *= np.linalg.norm(noise[i]) / np.linalg.norm(expected[i])
    orthogonal = orthogonal_rows(jnp.asarray(noise, jnp.float32))
    np.testing.assert_allclose(orthogonal, expected, rtol=1e-4, atol=1e-5)


def test_orthogonal_perturbations_are_antithetic_and_of_the_same_draws():
    key, kinds = jax.random.key(0), (False, True)
    plain, orthogonal = (
        antithetic_perturbations(key, 5, 3, 0.2, orthogonal=kind) for kind in kinds
    )
    np.testing.assert_array_equal(orthogonal[0::2], -orthogonal[1::2])
    rows = orthogonal_rows(plain[0::2])
    np.testing.assert_allclose(orthogonal[0::2], rows, rtol=1e-5, atol=1e-6)


def draws(num_pairs: int, size: int, orthogonal: bool) -> dict[str, Any]:
    """What the estimators draw by, as functions of a slice of the particles."""
    key, sigma = jax.random.key(5), jnp.linspace(0.1, 0.7, 2 * num_pairs)
    each = np.arange(2 * num_pairs) % 3
    low, high = jnp.full(size, -2.0), jnp.full(size, 2.0)
    random_search = partial(_draw, key, low, high, 2 * num_pairs)
    return {
        "each update": partial(
            draw_antithetic, key, num_pairs, size, 0.3, orthogonal=orthogonal
        ),
        "each period of each episode": partial(
            episode_perturbations,
            sigma,
            jax.random.key_data(key),
            each,
            size,
            each[::-1],
            num_pairs=num_pairs,
            orthogonal=orthogonal,
        ),
        **({} if orthogonal else {"random search": random_search}),
    }


@pytest.mark.parametrize("size", [1, 16, 1000])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_any_pairs_draw_theirs_as_the_whole_population_does_to_the_bit(
    size, orthogonal, monkeypatch
):
    """In one block, in several, and in one of each row."""
    num_pairs = 7
    monkeypatch.setattr(perturbations, "BLOCK_FLOATS", 48)
    for draw in draws(num_pairs, size, orthogonal).values():
        whole = np.asarray(draw(rows=slice(0, 2 * num_pairs), blocks=True))
        assert whole.shape == (2 * num_pairs, size) and whole.all()
        for first, last in [(0, 1), (2, 5)]:
            rows = slice(2 * first, 2 * last)
            np.testing.assert_array_equal(draw(rows=rows, blocks=True), whole[rows])


def test_rows_are_those_of_jax():
    key = jax.random.key(3)
    whole = jax.random.normal(key, (7, 1000))
    np.testing.assert_allclose(normal_rows(key, 1000, 2, 3), whole[2:5], rtol=1e-6)
    unit = jax.random.uniform(key, (7, 1000))
    rows = uniform_rows(key, np.float32(0), np.float32(1), 1000, 2, 3)
    np.testing.assert_array_equal(rows, unit[2:5])
    low, high = np.float32(-2), np.float32(3)
    whole = jax.random.uniform(key, (7, 1000), minval=low, maxval=high)
    rows = uniform_rows(key, low, high, 1000, 2, 3)
    np.testing.assert_allclose(rows, whole[2:5], rtol=1e-6, atol=1e-6)


def test_what_becomes_of_noise_does_not_change_its_bits():
    key = jax.random.key(3)

    @jax.jit
    def used(theta):
        noise = normal_rows(key, 33, 2, 7)
        return noise, jnp.exp(theta * jnp.stack([noise, -noise])).sum()

    alone = jax.jit(lambda: normal_rows(key, 33, 2, 7))()
    np.testing.assert_array_equal(used(2.0)[0], alone)


def test_too_many_rows_at_once_are_refused():
    with pytest.raises(ValueError, match="draw fewer rows, with pairs_per_chunk"):
        normal_rows(jax.random.key(0), 2**20, 0, 2**12)


def test_places_beyond_32_bits_are_counted_as_well():
    factors = np.array([0, 1, 429, 430, 65_535, 2**31 - 1], np.uint32)
    for other in (1, 65_537, 10_000_000, 2**31 - 1):
        high, low = _product(jnp.asarray(factors), other)
        for i, factor in enumerate(factors):
            assert (int(high[i]) << 32) + int(low[i]) == int(factor) * other


def test_pairs_may_be_drawn_from_any_place_on_as_chunks_are():
    both = list(draws(7, 3, True).values())[:2]
    for draw in both:
        whole = draw(rows=slice(0, 14))
        if draw is both[1]:
            sigma, key, episode, size, period = draw.args
            rest = slice(6, 14)
            cut = (sigma[rest], key, episode[rest], size, period[rest])
            draw = partial(draw.func, *cut, **draw.keywords)
        np.testing.assert_array_equal(draw(rows=slice(2, 6), first=3), whole[8:12])


def test_the_noise_of_an_episode_is_orthogonal_to_that_of_others_of_its_index():
    """Whatever episodes the other particles are in."""
    key = jax.random.key_data(jax.random.key(0))
    episode = np.array([0, 0, 2, 1, 0, 0, 1, 1])
    noise = episode_noise(key, episode, 3, orthogonal=True)
    for index in range(3):
        plain = episode_noise(key, np.full(8, index), 3)
        rows = orthogonal_rows(plain[0::2])
        whole = jnp.stack([rows, -rows], axis=1).reshape(8, 3)
        there = episode == index
        np.testing.assert_allclose(noise[there], whole[there], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [3, MATMUL_THRESHOLD])
@pytest.mark.parametrize("num_pairs", [4, 5])
def test_the_signal_to_noise_ratio_is_that_of_the_two_halves(num_pairs, size):
    shape = (2 * num_pairs, size)  # of five pairs the last is out
    contributions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pairs = contributions[0::2] + contributions[1::2]
    first, second = 2 * (pairs[0] + pairs[2]), 2 * (pairs[1] + pairs[3])
    variance = np.sum((first - second) ** 2) / 4
    expected = first @ second / variance
    found = signal_to_noise(jnp.asarray(contributions))
    assert found == pytest.approx(expected, 1e-4, abs=1e-5)
    assert np.isnan(signal_to_noise(jnp.asarray(contributions[:2])))
