"""Environments that break Gymnasium's API end in an error that says where and how.

Each fault of broken.py is met on every way to step simulations.
"""

import re
from functools import partial
from typing import Any

import broken
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.gymnasium.results import BrokenEnvironment


def of_vector_env(kind: Any) -> GymnasiumEnvironment:
    envs = SyncVectorEnv([kind] * 2, autoreset_mode=AutoresetMode.DISABLED)
    return GymnasiumEnvironment(envs)


WAYS: dict[str, Any] = {
    "constructor, sync": partial(GymnasiumEnvironment, vectorization="sync"),
    "constructor, async": partial(
        GymnasiumEnvironment, vectorization="async", num_threads=2
    ),
    "constructor, auto": partial(GymnasiumEnvironment, num_threads=2),
    "SyncVectorEnv": of_vector_env,
}


def run(make: Any, kind: Any, steps: int = 6) -> None:
    environment = make(kind)
    try:
        environment.allocate(2)
        ids = np.arange(2)
        environment.reset(ids, np.array([[3, 7], [4, 8]], np.uint32))
        for _ in range(steps):
            *_, ended = environment.step(np.zeros((2, 1)), None)
            if ended.any():
                return
    finally:
        simulations = environment._simulations
        if simulations is not None:
            simulations.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", broken.FAULTS)
def test_each_fault_is_an_error_at_its_step(fault, way):
    kind, step, message = broken.FAULTS[fault]
    where = f"step {step} " if step else r"reset\(seed=[078]\) "
    with pytest.raises(BrokenEnvironment, match=message) as caught:
        run(WAYS[way], kind)
    assert re.search(
        rf"(Broken|Burning|Integral|SyncVectorEnv): {where}", str(caught.value)
    )


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("fault", broken.LATE)
def test_a_fault_that_comes_late_is_an_error_at_its_step(fault, mode):
    """After five sound episodes; in the second environment of a SyncVectorEnv."""
    change, message = broken.LATE[fault]
    made: list[broken.Sound] = []

    class Turning(broken.Sound):
        def __init__(self) -> None:
            made.append(self)
            self.total = 0

        def change(self, step: int, result: tuple[Any, ...]) -> Any:
            self.total += step > 0
            bad = self is made[1] and self.total > 20 and step == 2
            return change(*result) if bad else result

    envs = SyncVectorEnv([Turning] * 2, autoreset_mode=mode)
    own = list(envs.envs)
    environment = GymnasiumEnvironment(envs)
    environment.allocate(2)
    keys, ids = np.array([[3, 7], [4, 8]], np.uint32), np.arange(2)
    environment.reset(ids, keys)
    for _ in range(20):
        if environment.step(np.zeros((2, 1)), None)[2].all():
            environment.reset(ids, keys)
    where = "this SyncVectorEnv: step 2"
    with pytest.raises(BrokenEnvironment, match=f"^{where} .*{message}"):
        for _ in range(2):
            environment.step(np.zeros((2, 1)), None)
    assert envs.envs == own


@pytest.mark.parametrize("way", WAYS)
def test_structured_observations_are_checked_too(way):
    class Structured(broken.Sound):
        observation_space = spaces.Dict({"arm": broken.Sound.observation_space})

        def change(self, step: int, result: tuple[Any, ...]) -> Any:
            row, *rest = result
            if step == 2:
                rest[0] = None
            return ({"arm": row}, *rest)

    with pytest.raises(BrokenEnvironment, match=r"step 2 .* reward None"):
        run(WAYS[way], Structured)


class Batch(VectorEnv):
    """Returns `result` from step 3 on."""

    num_envs = 2
    single_observation_space = broken.Sound.observation_space
    single_action_space: Any = broken.Sound.action_space
    observation_space = batch_space(single_observation_space, 2)

    def __init__(self, result: Any) -> None:
        self.result, self.steps = result, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.rows = getattr(self, "rows", np.zeros((2, 2), np.float32)).copy()
        self.rows[options["reset_mask"]] = 0
        return self.rows, {}

    def step(self, actions: Any) -> Any:
        self.steps += 1
        no = np.zeros(2, bool)
        self.rows = self.rows + 1
        sound = (self.rows, np.ones(2), no, no, {})
        return self.result if self.steps == 3 else sound


ROWS, NO = np.zeros((2, 2), np.float32), np.zeros(2, bool)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((ROWS, np.ones(2), NO, {}), "the five values"),
        (None, "the five values"),
        ((ROWS[:, :1], np.ones(2), NO, NO, {}), r"shape \(2, 1\)"),
        ((ROWS[0], np.ones(2), NO, NO, {}), r"shape \(2,\)"),
        ((ROWS + 1j, np.ones(2), NO, NO, {}), "type complex"),
        ((ROWS, np.ones((2, 1)), NO, NO, {}), r"rewards of shape \(2, 1\)"),
        ((ROWS, 1.0, NO, NO, {}), r"rewards of shape \(\)"),
        ((ROWS, [None, 1.0], NO, NO, {}), "rewards .* type object"),
        ((ROWS, None, NO, NO, {}), "rewards .* type object"),
        ((ROWS, np.ones(2), None, NO, {}), "terminated .* type object"),
        ((ROWS, np.ones(2), NO, [None, True], {}), "truncated .* type object"),
    ],
)
def test_results_of_a_vector_env_are_checked(result, message):
    environment = GymnasiumEnvironment(Batch(result))  # takes step 1
    environment.allocate(2)
    environment.reset(np.arange(2), np.zeros((2, 2), np.uint32))
    environment.step(np.zeros((2, 1)), None)
    with pytest.raises(
        BrokenEnvironment, match=f"this Batch: step 3 returned .*{message}"
    ):
        environment.step(np.zeros((2, 1)), None)


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_environment_passes(way):
    run(WAYS[way], broken.Sound)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    "fault", ["sys.exit at step 2", "long at step 3", "NaN at reset", "reward is None"]
)
def test_faults_of_a_registered_environment_name_its_id(fault, vectorization):
    kind, _, _ = broken.FAULTS[fault]

    class Named(kind):
        pass

    named: Any = Named
    gymnasium.register("BrokenById-v0", named, disable_env_checker=True)
    try:
        with pytest.raises(BrokenEnvironment, match=r"^BrokenById-v0: "):
            run(
                partial(
                    GymnasiumEnvironment, vectorization=vectorization, num_threads=1
                ),
                "BrokenById-v0",
            )
    finally:
        gymnasium.registry.pop("BrokenById-v0")


@pytest.mark.filterwarnings("ignore")  # Gymnasium's passive checker
def test_a_wrapper_that_cannot_read_the_result_of_old_gym():
    kind: Any = broken.FAULTS["step of old Gym"][0]
    gymnasium.register("OldGym-v0", kind, max_episode_steps=9)
    try:
        with pytest.raises(
            BrokenEnvironment, match=r"expected 5, got 4.*; .* step \(observation, rewa"
        ):
            run(partial(GymnasiumEnvironment, vectorization="sync"), "OldGym-v0")
    finally:
        gymnasium.registry.pop("OldGym-v0")


def test_a_reward_of_nan_stays_a_divergence():
    """And an observation that is not finite, where it is not the first."""
    nan_reward = broken.breaks(2, lambda o, _, *r: (o, np.nan, *r))
    environment = GymnasiumEnvironment(nan_reward, vectorization="sync")
    environment.allocate(1)
    environment.reset(np.arange(1), np.zeros((1, 2), np.uint32))
    rewards = [environment.step(np.zeros((1, 1)), None)[1][0] for _ in range(3)]
    np.testing.assert_array_equal(rewards, [1, np.nan, 1])
    run(WAYS["constructor, sync"], broken.shaped(2, lambda row: row * np.nan))


@pytest.mark.parametrize(
    "reward", [1, True, np.float32(1), np.int64(1), np.array(1.0)], ids=repr
)
@pytest.mark.parametrize("ended", [1, np.True_, np.array(True)], ids=repr)
def test_every_scalar_is_a_reward(reward, ended):
    kind = broken.breaks(2, lambda o, _r, _t, *rest: (o, reward, ended, *rest))
    environment = GymnasiumEnvironment(kind, vectorization="sync")
    environment.allocate(1)
    environment.reset(np.arange(1), np.zeros((1, 2), np.uint32))
    for expected in (False, True):
        _, rewards, ends = environment.step(np.zeros((1, 1)), None)
        assert (rewards.tolist(), ends.tolist()) == ([1.0], [expected])


def with_actions(space: spaces.Space | None) -> type[broken.Sound]:
    return type("Acting", (broken.Sound,), {"action_space": space})


SPACES = {
    "whole numbers": spaces.Box(0, 9, (2,), np.int64),
    "of shape ()": spaces.Box(-1, 1, (), np.float32),
    "of shape (0,)": spaces.Box(-1, 1, (0,), np.float32),
    "actions are None": None,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message", SPACES)
def test_action_spaces_that_policies_cannot_use_are_refused(message, way):
    space = SPACES[message]
    if space is None and way == "SyncVectorEnv":
        pytest.skip("SyncVectorEnv refuses it itself")
    with pytest.raises(ValueError, match=re.escape(message)):
        WAYS[way](with_actions(space))


@pytest.mark.parametrize(
    "error",
    [
        OSError("no arm.xml"),
        AssertionError("odd"),
        AttributeError("arm"),
        SystemExit(0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("vectorization", ["sync", "async", "auto"])
@pytest.mark.parametrize("registered", [True, False], ids=["id", "constructor"])
def test_constructors_that_raise_name_the_environment(error, vectorization, registered):
    class Unmakable(broken.Sound):
        def __init__(self) -> None:
            raise error

    constructor: Any = Unmakable
    gymnasium.register("Unmakable-v0", constructor)
    maker: Any = "Unmakable-v0" if registered else constructor
    name = "Gymnasium cannot make 'Unmakable-v0'" if registered else "Unmakable cannot"
    try:
        with pytest.raises(ValueError, match=name) as caught:
            GymnasiumEnvironment(maker, vectorization=vectorization)
    finally:
        gymnasium.registry.pop("Unmakable-v0")
    message = str(caught.value)
    assert f"{type(error).__name__}: {error}" in message
    assert "test_contract.py: raise error" in message


def test_a_constructor_that_raises_in_workers_alone():
    """Made once here and then no more."""

    def make() -> gymnasium.Env:
        import sys

        if "jax" not in sys.modules:  # as in a worker
            raise OSError("no display")
        return broken.Sound()

    environment = GymnasiumEnvironment(make, vectorization="async", num_threads=1)
    with pytest.raises(ValueError, match=r"worker process.*OSError: no display"):
        environment.allocate(2)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_observations_of_another_shape_the_second_time(vectorization):
    class Growing(broken.Sound):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            space = spaces.Box(-9, 9, (type(self).made,))
            self.observation_space = space

    environment = GymnasiumEnvironment(
        Growing, vectorization=vectorization, num_threads=1
    )
    with pytest.raises(ValueError, match="has observations of shape"):
        environment.allocate(2)


def test_a_buffer_that_all_environments_share_is_copied():
    shared = np.zeros(2, np.float32)

    class Sharing(broken.Sound):
        def change(self, step: int, result: tuple[Any, ...]) -> Any:
            shared[:] = result[0]
            return (shared, *result[1:])

    environments = []
    for kind in (Sharing, broken.Sound):
        environment = GymnasiumEnvironment(kind, vectorization="sync")
        environment.allocate(2)
        keys = np.array([[3, 7], [4, 8]], np.uint32)
        rows = [environment.reset(np.arange(2), keys)]
        rows.append(environment.step(np.zeros((2, 1)), None)[0])
        environments.append(rows)
    np.testing.assert_array_equal(*environments)
