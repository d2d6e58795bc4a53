"""A learned optimiser as an optax transformation takes the steps of its training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pes_rl
from pes_rl.envs.unrolled.classifier import first_network, training_gradient
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer

OPTIONS = {"hidden_sizes": [4], "batch_size": 4, "optimizer_hidden_sizes": [6]}
PROBLEM = LearnedOptimizer(
    hidden_sizes=(4,), batch_size=4, optimizer_hidden_sizes=(6,), horizon=20
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        return pes_rl.train(
            "unrolled:learned-optimizer",
            num_pairs=2,
            truncation_length=5,
            horizon=20,
            total_timesteps=80,
            eval_episodes=1,
            final_eval_episodes=1,
            env_kwargs=OPTIONS,
            logdir=tmp_path_factory.mktemp("runs") / "run",
        )


def test_it_takes_the_steps_that_training_took(run):
    """The inner training again, with optax in place of the problem's own step."""
    theta = 30 * jnp.asarray(run.theta)  # steps large enough to see
    key = jax.random.key(3)
    expected = PROBLEM.init(key)
    network = first_network(
        jax.random.key_data(key), PROBLEM.layer_sizes(PROBLEM.hidden_sizes)
    )
    optimizer = PROBLEM.rule.transformation(theta)
    state = optimizer.init(network)

    @jax.jit
    def step(network, state, t):
        learn, _ = PROBLEM.minibatches(jax.random.key_data(key), t)
        gradient = training_gradient(network, learn)
        updates, state = optimizer.update(gradient, state, network)
        return optax.apply_updates(network, updates), state

    problem_step = jax.jit(PROBLEM.step)
    for t in range(5):
        network, state = step(network, state, jnp.int32(t))
        expected, _, _ = problem_step(theta, expected)
    first = PROBLEM.init(key)[2]
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), network, first)
    assert max(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        network,
        expected[2],
    )


def test_a_run_gives_its_own_parameters(run):
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    gradient = {"w": jnp.full((3, 2), 0.5), "b": jnp.ones(2)}
    updates = []
    for optimizer in (
        pes_rl.load_optimizer(run.folder, "last"),
        PROBLEM.rule.transformation(run.theta),
    ):
        update = jax.jit(optimizer.update)
        updates.append(update(gradient, optimizer.init(params), params)[0])
    jax.tree.map(np.testing.assert_array_equal, *updates)
    assert updates[0]["w"].shape == (3, 2)
    assert len(run.theta) == 134


def test_it_needs_the_weights(run):
    optimizer = pes_rl.load_optimizer(run.folder)
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="update\\(gradient, state, params\\)"):
        optimizer.update(params, optimizer.init(params))


def test_other_runs_have_none(run, tmp_path):
    settings = json.loads((run.folder / "config.json").read_text())
    settings["settings"]["env"] = "unrolled:lr-schedule"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="comes from unrolled:learned-optimizer"):
        pes_rl.load_optimizer(tmp_path)


def test_parameters_of_another_rule_are_refused(run, tmp_path):
    settings = json.loads((run.folder / "config.json").read_text())
    settings["settings"]["env_kwargs"] = "{}"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "policy").mkdir()
    file = "policy/best.npz"
    (tmp_path / file).write_bytes((run.folder / file).read_bytes())
    with pytest.raises(ValueError, match=r"holds 134 parameters, .* has 1762"):
        pes_rl.load_optimizer(tmp_path)
