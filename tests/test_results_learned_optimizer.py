"""The study of results/learned_optimizer: its trainings are the environment's own."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from pes_rl.envs.unrolled.classifier import first_network, training_gradient
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.envs.unrolled.update_rule import UpdateRule
from pes_rl.studies.study import read_study

STUDY = Path(__file__).parents[1] / "results" / "learned_optimizer"
T = 12
PROBLEM = LearnedOptimizer(
    hidden_sizes=(4,), optimizer_hidden_sizes=(6,), batch_size=8, horizon=T
)
EPISODES = (3, 5)


@pytest.fixture(scope="module")
def study():
    """The study's modules."""
    names = "inner_training", "adam", "generalize_report", "generalize", "speed"
    sys.path.insert(0, str(STUDY))
    try:
        modules = {name: import_module(name) for name in names}
    finally:
        sys.path.remove(str(STUDY))
        for name in names:
            sys.modules.pop(name, None)
    return SimpleNamespace(**modules)


@pytest.fixture(autouse=True)
def _standard_promotion():
    """optax's Adam needs it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def measured(problem: Any, episode: int, network: Any = None) -> list[float]:
    """Losses of a network, or of the episode's first, on each step's minibatch."""
    key = jax.random.key_data(jax.random.key(episode))
    if network is None:
        network = first_network(key, problem.layer_sizes(problem.hidden_sizes))
    batches = (problem.minibatches(key, jnp.int32(t))[1] for t in range(T))
    return [float(problem.measure(network, batch)) for batch in batches]


def objectives() -> list[LearnedOptimizer]:
    names: Any = ("training-loss", "validation-loss")
    return [replace(PROBLEM, objective=name) for name in names]


@pytest.mark.parametrize("which", ["Adam at rate 0", "a rule of zeros"])
def test_without_steps_the_first_network_keeps_its_losses(study, which):
    optimizer = study.inner_training.Adam(0.0, falls=True).transformation(T)
    if which == "a rule of zeros":
        optimizer = UpdateRule((6,)).transformation(np.zeros(134))
    losses = study.inner_training.train(PROBLEM, optimizer, EPISODES)
    found = losses.training, losses.validation
    for problem, of_both in zip(objectives(), found, strict=True):
        for episode, one in zip(EPISODES, of_both, strict=True):
            np.testing.assert_allclose(one, measured(problem, episode), rtol=1e-5)


def test_a_rule_has_the_losses_of_the_environments_episodes(study):
    theta = 30 * PROBLEM.init_theta(jax.random.key(0))  # steps large enough to see
    optimizer = PROBLEM.rule.transformation(theta)
    losses = study.inner_training.train(PROBLEM, optimizer, EPISODES)
    for problem, found in zip(
        objectives(), (losses.training, losses.validation), strict=True
    ):

        def step(state: Any, _: None, problem: Any = problem) -> Any:
            return problem.step(theta, state)[:2]

        for episode, one in zip(EPISODES, found, strict=True):
            state = problem.init(jax.random.key(episode))
            expected = jax.jit(lambda s, f=step: lax.scan(f, s, length=T)[1])(state)
            np.testing.assert_allclose(one, expected, rtol=1e-4)
            assert abs(one[-1] - measured(problem, episode)[-1]) > 1e-3


@pytest.mark.parametrize("falls", [False, True])
def test_adams_steps_have_the_size_of_its_rate(study, falls):
    """The first is its rate times the gradient's sign, at every rate of the grid."""
    losses = study.inner_training.train_by_grid(PROBLEM, falls, EPISODES)
    assert losses.training.shape == (len(study.inner_training.RATES), 2, T)
    key = jax.random.key_data(jax.random.key(EPISODES[1]))
    network = first_network(key, PROBLEM.layer_sizes(PROBLEM.hidden_sizes))
    learn, _ = PROBLEM.minibatches(key, jnp.int32(0))
    gradient = training_gradient(network, learn)
    for rate, found in zip(
        study.inner_training.RATES, losses.training[:, 1, 0], strict=True
    ):
        moved = jax.tree.map(
            lambda w, g, rate=rate: w - rate * g / (jnp.abs(g) + 1e-8),
            network,
            gradient,
        )
        expected = measured(PROBLEM, EPISODES[1], moved)[0]
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_falling_rate_is_half_a_cosine(study):
    """Where the gradient is constant, Adam's steps are its rate."""
    optimizer = study.inner_training.Adam(0.1, falls=True).transformation(4)
    w, gradient, steps = jnp.zeros(1), jnp.ones(1), []
    state = optimizer.init(w)
    for _ in range(4):
        change, state = optimizer.update(gradient, state, w)
        steps.append(float(-change[0]))
    half = np.sqrt(0.5)
    expected = [0.1, 0.05 * (1 + half), 0.05, 0.05 * (1 - half)]
    np.testing.assert_allclose(steps, expected, rtol=1e-4)


def test_the_best_rate_has_the_lowest_sum_and_no_nan(study):
    module = study.inner_training
    training = np.ones((len(module.RATES), 2, T))
    training[5] = 0.5
    training[6] = 0.0
    training[6, 1, 3] = np.nan
    assert module.best_rate(module.Losses(training, training)) == module.RATES[5]
    assert module.RATES[0] == pytest.approx(1e-4)
    assert module.RATES[-1] == pytest.approx(10**-0.5)


def test_tuning_takes_the_better_schedule(study, monkeypatch):
    module = study.inner_training
    sizes = {False: 1.0, True: 0.9}

    def grid(problem: Any, falls: bool, episodes: Any) -> Any:
        assert set(episodes).isdisjoint(range(20))  # those that results are made of
        training = np.full((len(module.RATES), 2, problem.horizon), 2.0)
        training[3] = sizes[falls]
        return module.Losses(training, training)

    monkeypatch.setattr(module, "train_by_grid", grid)
    assert module.tune(PROBLEM) == module.Adam(module.RATES[3], falls=True)


def test_rows_are_sums_and_means_of_parts(study):
    training = np.arange(2.0 * T).reshape(2, T)
    losses = study.inner_training.Losses(training, 10 * training)
    rows = study.inner_training.episode_rows(losses, task="one")
    assert [row["training_loss"] for row in rows] == training.sum(1).tolist()
    assert rows[1]["last_validation_loss"] == 10 * (22 + 23) / 2  # 2 of 12 steps
    curve = study.inner_training.curve_rows(losses, points=5, task="one")
    assert [row["step"] for row in curve] == [3, 6, 8, 10, 12]
    assert curve[0]["training_loss"] == (0 + 1 + 2 + 12 + 13 + 14) / 6
    assert curve[-1]["validation_loss"] == 10 * (10 + 11 + 22 + 23) / 4


def test_weights_are_counted(study):
    network = first_network(
        jax.random.key_data(jax.random.key(0)),
        PROBLEM.layer_sizes(PROBLEM.hidden_sizes),
    )
    expected = sum(leaf.size for leaf in jax.tree.leaves(network))
    assert study.inner_training.num_weights(PROBLEM) == expected == 310


def test_operations_are_those_of_the_matrix_products(study):
    """64 - 4 - 10 units, batches of 8, and 8 - 6 - 2 units at each of 310 weights."""
    forward = 64 * 4 + 4 * 10
    backward = (64 * 4 + 4 * 10) + 4 * 10  # of weights, and of hidden units
    network = 8 * (forward + backward + forward)
    assert study.speed.operations(PROBLEM) == 2 * (network + 310 * (8 * 6 + 6 * 2))


def test_held_out_tasks_are_ten_times_as_large(study):
    """In weights or in steps, with the study's images, whose files are not here."""
    options = json.loads(
        read_study(STUDY / "fashion_mnist" / "study.toml").runs[0].config.env_kwargs
    )
    (hidden,) = options["hidden_sizes"]
    size = options["image_size"]
    inputs = {"fashion-mnist": 28, "cifar-10": 32}

    def weights(sizes: list[int]) -> int:
        return sum((n + 1) * m for n, m in pairwise(sizes))

    own = weights([size**2, hidden, 10])
    for changes in study.generalize.TASKS.values():
        data = changes.get("data", options["data"])
        rows = changes.get("image_size", size) or inputs[data]
        channels = 3 if data == "cifar-10" else 1
        layers = changes.get("hidden_sizes", (hidden,))
        ratio = weights([channels * rows**2, *layers, 10]) / own
        ratio *= changes.get("horizon", options["horizon"]) / options["horizon"]
        assert ratio >= 10


def test_what_is_kept_is_not_trained_again(study, tmp_path):
    losses = study.inner_training.Losses(np.ones((2, 3)), np.zeros((2, 3)))
    calls = []

    def train_now() -> Any:
        calls.append(1)
        return losses

    for _ in range(2):
        found = study.generalize.kept(tmp_path / "task", "pes-s0", train_now)
        np.testing.assert_array_equal(found.training, losses.training)
        np.testing.assert_array_equal(found.validation, losses.validation)
    assert len(calls) == 1


def test_a_contest_is_between_a_runs_optimiser_and_adam(study, tmp_path, monkeypatch):
    """The run's rule has theta = 0, so its losses are those of the first networks."""
    rule = UpdateRule((6,)).transformation(np.zeros(134))
    monkeypatch.setattr(study.generalize.pes_rl, "load_optimizer", lambda run: rule)
    runs = [Path("pes-k50-s0"), Path("pes-k50-s1")]
    wide = replace(PROBLEM, hidden_sizes=(9,))
    contest = study.generalize.Contest(PROBLEM, wide, runs, 2, tmp_path)
    assert list(contest.entries)[:2] == [("pes-k50", run.name) for run in runs]
    still = contest.losses("pes-k50", "pes-k50-s1")
    for episode in range(2):
        expected = measured(wide, episode)
        np.testing.assert_allclose(still.training[episode], expected, rtol=1e-5)
    untuned = contest.losses("Adam, untuned", "")
    known = study.inner_training.train(wide, optax.adam(0.001), range(2))
    np.testing.assert_allclose(untuned.training, known.training, rtol=1e-5)
    tuned = study.inner_training.Adam(0.1, falls=True)
    monkeypatch.setattr(study.generalize, "tune", lambda p: {PROBLEM: tuned}[p])
    known = study.inner_training.train(wide, tuned.transformation(T), range(2))
    found = contest.losses("Adam, tuned on the runs' task", "")
    np.testing.assert_allclose(found.training, known.training, rtol=1e-5)


def test_the_table_counts_runs_and_episodes_as_seeds(study, tmp_path):
    common = {"task": "wider", "weights": 15.9, "steps": 1.0}
    names = ("optimiser", "run", "training_loss", "last_validation_loss")
    values = [
        ("pes", "pes-s0", 10.0, 1.0),
        ("pes", "pes-s0", 20.0, 2.0),
        ("pes", "pes-s1", 30.0, 3.0),
        ("Adam", "", 40.0, 4.0),
        ("Adam", "", 60.0, 5.0),
    ]
    rows = [{**common, **dict(zip(names, row, strict=True))} for row in values]
    study.generalize_report.write_table(tmp_path / "table.md", rows)
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    means = "22.5 (15.0 to 30.0) | 2.250 (1.500 to 3.000)"
    assert lines[0] == f"| wider | 15.9, 1 | pes | 2 | {means} |"
    means = "50.0 (40.0 to 60.0) | 4.500 (4.000 to 5.000)"
    assert lines[1] == f"| wider | 15.9, 1 | Adam | 2 | {means} |"


@pytest.mark.parametrize(
    "name", ["fashion_mnist", "fashion_mnist_more", "fashion_mnist_mlp", "cifar_10"]
)
def test_studies_compare_agents_at_the_same_inner_problem(name):
    study = read_study(STUDY / name / "study.toml")
    assert len({run.config.env_kwargs for run in study.runs}) == 1
    assert len({run.config.total_timesteps for run in study.runs}) == 1
    options = json.loads(study.runs[0].config.env_kwargs)
    assert options["horizon"] == 2000
    sizes = UpdateRule(options["optimizer_hidden_sizes"])
    parameters = len(sizes.parameter_names)
    assert parameters == (1762 if name == "fashion_mnist_mlp" else 134)
    agents = {run.config.agent for run in study.runs}
    partial = {"pes", "nres", "truncated-es"}
    others = {"fashion_mnist": {"es"}, "fashion_mnist_more": {"pes-analytic"}}
    assert agents == partial | others.get(name, {"es", "pes-analytic"})
    for arm in study.arms:
        assert [r.config.seed for r in study.runs if r.arm == arm] == [0, 1, 2, 3, 4]
