"""Policies of own networks: flax linen, flax nnx, equinox and plain functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents.networks.host_batch import HostBatch
from pes_rl.agents.networks.policy import (
    NetworkPolicy,
    RecurrentNetworkPolicy,
    make_network_policy,
)
from pes_rl.agents.policy_names import import_network

pytestmark = pytest.mark.user_compilation

LOW, HIGH, OBSERVATION_SIZE, UNITS = (-0.5, -2.0), (0.5, 1.0), 3, 4
NUM_PARAMETERS = UNITS * (OBSERVATION_SIZE + 1) + 2 * (UNITS + 1)


def linen_class():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        action_size: int

        @linen.compact
        def __call__(self, observation):
            hidden = jnp.tanh(linen.Dense(UNITS)(observation))
            return linen.Dense(self.action_size)(hidden)

    return Net


def nnx_class():
    nnx: Any = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, observation_size, action_size, rngs):
            self.hidden = nnx.Linear(observation_size, UNITS, rngs=rngs)
            self.out = nnx.Linear(UNITS, action_size, rngs=rngs)

        def __call__(self, observation):
            return self.out(jnp.tanh(self.hidden(observation)))

    return Net


def equinox_class():
    eqx: Any = pytest.importorskip("equinox")

    class Net(eqx.Module):
        hidden: Any
        out: Any

        def __init__(self, observation_size, action_size, key):
            first, second = jax.random.split(key)
            self.hidden = eqx.nn.Linear(observation_size, UNITS, key=first)
            self.out = eqx.nn.Linear(UNITS, action_size, key=second)

        def __call__(self, observation):
            return self.out(jnp.tanh(self.hidden(observation)))

    return Net


def functions(observation_size, action_size):
    def init(key):
        shapes = {"b": (UNITS,), "c": (action_size,)}
        weights = {"u": (UNITS, observation_size), "w": (action_size, UNITS)}
        return {
            name: jax.random.normal(jax.random.fold_in(key, ord(name)), shape)
            for name, shape in (shapes | weights).items()
        }

    def apply(p, observation):
        return p["w"] @ jnp.tanh(p["u"] @ observation + p["b"]) + p["c"]

    return init, apply


MAKERS = {
    "linen": linen_class,
    "nnx": nnx_class,
    "equinox": equinox_class,
    "functions": lambda: functions,
}
every_kind = pytest.mark.parametrize("kind", MAKERS)


def policy_of(given, **options) -> Any:
    return make_network_policy("mine", given, OBSERVATION_SIZE, LOW, HIGH, **options)


def direct(kind, given, key, observation):
    """The output of the library's own call, on its own parameters for the key."""
    if kind == "linen":
        module = given(action_size=2)
        return module.apply(module.init(key, jnp.zeros(OBSERVATION_SIZE)), observation)
    if kind == "nnx":
        nnx: Any = pytest.importorskip("flax.nnx")
        return given(OBSERVATION_SIZE, 2, rngs=nnx.Rngs(key))(observation)
    if kind == "equinox":
        return given(OBSERVATION_SIZE, 2, key=key)(observation)
    init, apply = given(OBSERVATION_SIZE, 2)
    return apply(init(key), observation)


@every_kind
def test_the_first_theta_acts_as_the_library_does(kind):
    given, key = MAKERS[kind](), jax.random.key(3)
    policy = policy_of(given)
    assert type(policy) is NetworkPolicy
    theta = policy.init(key)
    assert theta.shape == (policy.num_parameters,) == (NUM_PARAMETERS,)
    assert theta.dtype == jnp.float32
    observation = jnp.array([0.3, -1.0, 0.5])
    expected = direct(kind, given, key, observation)
    np.testing.assert_allclose(
        policy.act(theta, observation),
        jnp.clip(expected, *map(np.array, (LOW, HIGH))),
        rtol=1e-5,
        atol=1e-6,
    )
    assert (theta != policy.init(jax.random.key(4))).any()


@every_kind
def test_a_batch_in_numpy_is_the_vmapped_one_and_its_rows(kind):
    policy = policy_of(MAKERS[kind]())
    generator = np.random.default_rng(0)
    theta = generator.normal(size=(11, NUM_PARAMETERS))
    observation = generator.normal(size=(11, OBSERVATION_SIZE))
    actions = policy.act(theta, observation)
    assert type(actions) is np.ndarray
    assert actions.dtype == np.float32
    device = [jnp.asarray(a, jnp.float32) for a in (theta, observation)]
    expected = jax.vmap(policy.act)(*device)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policy.act(*device), expected, rtol=1e-5, atol=1e-6)
    one = policy.act(theta[4], observation[4])
    assert one.shape == (2,)
    np.testing.assert_allclose(one, expected[4], rtol=1e-5, atol=1e-6)
    shared = policy.act(np.broadcast_to(theta[4], theta.shape), observation)
    np.testing.assert_allclose(shared[4], expected[4], rtol=1e-5, atol=1e-6)
    assert np.ptp(actions) > 1


def test_an_instance_keeps_its_own_parameters_whatever_the_key():
    given = equinox_class()(OBSERVATION_SIZE, 2, key=jax.random.key(7))
    policy = policy_of(given)
    first, second = (policy.init(jax.random.key(k)) for k in (0, 1))
    np.testing.assert_array_equal(first, second)
    observation = jnp.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(
        policy_of(given, clip=False).act(first, observation),
        given(observation),
        rtol=1e-6,
    )


def test_actions_are_squashed_or_left_as_they_are():
    observation = np.ones(OBSERVATION_SIZE, np.float32)
    theta = np.ones(NUM_PARAMETERS, np.float32)
    output = policy_of(functions, clip=False).act(theta, observation)
    assert (output > HIGH).all()
    squashed = policy_of(functions, squash=True).act(theta, observation)
    expected = [0.5 * np.tanh(output[0]), -0.5 + 1.5 * np.tanh(output[1])]
    np.testing.assert_allclose(squashed, expected, rtol=1e-6)


class Remembers:
    """Functions of a network whose output is the sum of what it has seen."""

    @staticmethod
    def init(key):
        return jax.random.normal(key, (2, OBSERVATION_SIZE))

    @staticmethod
    def initial_carry():
        return {"sum": np.zeros(OBSERVATION_SIZE, np.float32), "calls": np.int32(0)}

    @staticmethod
    def apply(weights, carry, observation):
        total = carry["sum"] + observation
        return {"sum": total, "calls": carry["calls"] + 1}, weights @ total


def recurrent_policy(**changes) -> Any:
    parts = {name: getattr(Remembers, name) for name in ("init", "apply")}
    parts |= {"initial_carry": Remembers.initial_carry} | changes
    return policy_of(tuple(parts[n] for n in ("init", "apply", "initial_carry")))


def test_a_network_with_a_carry_remembers_on_host_and_device():
    policy = recurrent_policy()
    assert type(policy) is RecurrentNetworkPolicy
    generator = np.random.default_rng(0)
    theta = 0.1 * generator.normal(size=(5, 6)).astype(np.float32)
    observations = generator.normal(size=(3, 5, OBSERVATION_SIZE)).astype(np.float32)
    carry = jax.tree.map(
        lambda leaf: np.repeat(np.asarray(leaf)[None], 5, 0), policy.initial_carry()
    )
    on_device = jax.tree.map(jnp.asarray, carry)
    for step, observation in enumerate(observations, start=1):
        carry, actions = policy.act(theta, carry, observation)
        on_device, same = jax.jit(jax.vmap(policy.act))(
            jnp.asarray(theta), on_device, observation
        )
        np.testing.assert_allclose(actions, same, atol=1e-6)
        total = observations[:step].sum(0)
        output = np.einsum("nao,no->na", theta.reshape(5, 2, 3), total)
        np.testing.assert_allclose(actions, np.clip(output, LOW, HIGH), atol=1e-6)
        np.testing.assert_array_equal(carry["calls"], step)
        assert carry["calls"].dtype == np.int32


def test_a_module_with_a_carry_is_recurrent():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        def initial_carry(self):
            return jnp.zeros(UNITS)

        @linen.compact
        def __call__(self, carry, observation):
            carry, hidden = linen.GRUCell(UNITS)(carry, observation)
            return carry, linen.Dense(2)(hidden)

    policy = policy_of(Net())
    assert type(policy) is RecurrentNetworkPolicy
    theta = policy.init(jax.random.key(0))
    observation = jnp.ones(OBSERVATION_SIZE)
    carry, first = policy.act(theta, policy.initial_carry(), observation)
    _, second = policy.act(theta, carry, observation)
    assert (first != second).any()


def test_batches_are_compiled_for_powers_of_two_alone():
    traced = []

    def function(theta, observation):
        traced.append(observation.shape)
        return theta[:1] + observation

    batch = HostBatch(function)
    for count in (20, 19, 17, 16, 12, 9, 5, 2, 1):
        rows = np.arange(count, dtype=np.float64)[:, None]
        result = batch(np.full((count, 2), 0.5), rows)
        np.testing.assert_array_equal(result, rows + 0.5)
    assert len(traced) == 3  # 32, 16 and 8


def test_parameters_that_a_caller_changes_in_place_are_moved_again():
    batch = HostBatch(lambda theta, observation: theta + observation)
    thetas, zeros = np.ones((3, 1)), np.zeros((3, 1))
    assert batch(thetas, zeros).tolist() == [[1.0]] * 3
    thetas += 1
    assert batch(thetas, zeros).tolist() == [[2.0]] * 3


def half_precision():
    init, apply = functions(OBSERVATION_SIZE, 2)

    def init_half(key):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float16), init(key))

    return init_half, apply


def batch_norm():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, observation):
            return linen.BatchNorm(use_running_average=True)(observation)[:2]

    return Net()


@pytest.mark.parametrize("code", ["import json; json.nothing", "from json import no"])
def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch, code):
    (tmp_path / "broken_network.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"'broken_network' raised \w+"):
        import_network("broken_network:Net")


def needs_more(observation_size, width):
    return functions(observation_size, width)


def fails(action_size):
    return {}[action_size]


REFUSED = {
    "an error": (lambda: fails, r"policy=fails cannot be made: KeyError: 2 \(line "),
    "no network": (lambda: 3, "is no network; use a flax or equinox module"),
    "one function": (lambda: (lambda key: key,), r"must be the functions \(init, app"),
    "an argument": (lambda: needs_more, "needs_more needs width, and only"),
    "makes none": (lambda: lambda: 5, "made int, which is no network"),
    "three outputs": (
        lambda: functions(OBSERVATION_SIZE, 3),
        r"gives float32 of shape \(3,\) .* needs float32 of shape \(2,\)",
    ),
    "other sizes": (lambda: functions(7, 2), "fails on an observation of shape"),
    "half precision": (half_precision, "parameters of type float16; use float32"),
    "no parameters": (
        lambda: (lambda key: {}, lambda p, o: o[:2]),
        "parameters none at all",
    ),
    "batch statistics": (batch_norm, r"besides its parameters \(batch_stats\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_policy_is_refused_in_a_sentence(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        policy_of(make())
    assert "\n" not in str(caught.value)


def test_a_carry_that_changes_its_form_is_refused():
    def wider(weights, carry, observation):
        return {"sum": jnp.zeros(5), "calls": carry["calls"]}, weights @ observation

    with pytest.raises(ValueError, match=r"float32\[3\].* and returns .*float32\[5\]"):
        recurrent_policy(apply=wider)
    with pytest.raises(ValueError, match=r"must return \(carry, output\)"):
        recurrent_policy(apply=lambda weights, carry, o: weights @ o)
