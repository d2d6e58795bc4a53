"""MuJoCo tasks stepped natively by `mujoco.batch.Batch`.

A task here is the model, observation, reward and reset noise of Gymnasium's
environment of the same name, stated once as data, over one shared environment. The
simulations of a batch run on MuJoCo's own thread pool, bit-identical at any number of
threads; each is a row of MuJoCo's integration state, which can be read, written and
copied.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

from pes_rl.envs.episodes import Array

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
"""Folder of the models that Gymnasium ships."""

_DIVERGENCE_WARNINGS = [
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]


@dataclass(frozen=True)
class Task:
    """What makes a MuJoCo model a reinforcement-learning task.

    Its functions take NumPy and JAX arrays with any leading axes.

    Attributes:
        gymnasium_id: Gymnasium's environment of the same task.
        model_file: Model among those that Gymnasium ships.
        frame_skip: Physics steps in one environment step.
        horizon: Environment steps after which an episode is cut.
        observation_size: Numbers in an observation.
        reset_noise: An episode starts from the model's first pose at rest, with noise
            from U(-reset_noise, reset_noise) on every position and velocity.
        observe: (qpos, qvel) -> observations.
        evaluate: (qpos before, qpos after, actions, seconds of a step) ->
            (rewards, terminated).
    """

    gymnasium_id: str
    model_file: str
    frame_skip: int
    horizon: int
    observation_size: int
    reset_noise: float
    observe: Callable[[Array, Array], Array]
    evaluate: Callable[[Array, Array, Array, float], tuple[Array, Array]]


def _swimmer_observation(qpos: Array, qvel: Array) -> Array:
    xp = qpos.__array_namespace__()
    return xp.concat([qpos[..., 2:], qvel], axis=-1)


def _swimmer_reward(
    before: Array, after: Array, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Forward speed less 1e-4 times the squared action as given; no early end."""
    xp = after.__array_namespace__()
    forward = (after[..., 0] - before[..., 0]) / seconds
    return forward - 1e-4 * xp.vecdot(actions, actions), xp.zeros(
        after.shape[:-1], bool
    )


TASKS = {
    # gymnasium/envs/mujoco/swimmer_v5.py; the time limit is that of its registration.
    "swimmer": Task(
        gymnasium_id="Swimmer-v5",
        model_file="swimmer.xml",
        frame_skip=4,
        horizon=1000,
        observation_size=8,
        reset_noise=0.1,
        observe=_swimmer_observation,
        evaluate=_swimmer_reward,
    ),
}


def load_model(task: Task) -> mujoco.MjModel:
    """The task's model, compiled by MuJoCo."""
    return mujoco.MjModel.from_xml_path(str(ASSETS / task.model_file))


def _can_collide(model: mujoco.MjModel) -> bool:
    """Whether any two geoms of the model may touch each other."""
    contype = np.bitwise_or.reduce(model.geom_contype)
    conaffinity = np.bitwise_or.reduce(model.geom_conaffinity)
    return bool(contype & conaffinity) or model.npair > 0


class MujocoEnvironment:
    """A batch of simulations of one task; a `HostEnvironment`.

    `save` returns the state rows (mjSTATE_INTEGRATION), shape (N, S), float64.

    Args:
        name: A key of `TASKS`.
        num_threads: Threads that step the batch; 0 takes every CPU. It changes the
            speed and nothing else.

    Raises:
        ValueError: If `num_threads` is negative.
    """

    on_device = False
    can_copy = True

    def __init__(self, name: str, num_threads: int = 0) -> None:
        if num_threads < 0:
            raise ValueError(
                f"num_threads={num_threads} must be 0 (every CPU) or more; use 0"
            )
        self.task = TASKS[name]
        self.model = load_model(self.task)
        if not _can_collide(self.model):
            # Looking for contacts all the same is a tenth of Swimmer's step.
            self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        self.observation_size = self.task.observation_size
        self.action_low, self.action_high = self.model.actuator_ctrlrange.T.copy()
        self.horizon = self.task.horizon
        self._num_threads = num_threads
        self._step_seconds = self.model.opt.timestep * self.task.frame_skip
        self._batches: dict[int, Batch] = {}

    def allocate(self, num_simulations: int) -> None:
        if num_simulations not in self._batches:
            batch = Batch(self.model, num_simulations, nthread=self._num_threads)
            batch.reset()
            self._first_row = batch.state[0].copy()
            self._batches[num_simulations] = batch
        self._batch = self._batches[num_simulations]
        self._qpos, self._qvel, self._ctrl = map(
            self._batch.bind, ("qpos", "qvel", "ctrl")
        )

    def load(self, state: np.ndarray) -> None:
        self.allocate(len(state))
        self._batch.state[:] = state

    def save(self) -> np.ndarray:
        return self._batch.state.copy()

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        for i, key in zip(ids, keys, strict=True):
            self._batch.state[i] = self._first_row
            draw, noise = np.random.default_rng(key).uniform, self.task.reset_noise
            self._qpos[i] = self.model.qpos0 + draw(-noise, noise, self.model.nq)
            self._qvel[i] = draw(-noise, noise, self.model.nv)
        # As Gymnasium's set_state does; it also sets the constraint solver's start.
        self._batch.forward(ids)
        return self.task.observe(self._qpos[ids], self._qvel[ids])

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = slice(None) if ids is None else ids
        before = self._qpos[rows].copy()
        self._ctrl[rows] = actions
        failed = self._advance(ids)
        qpos, qvel = self._qpos[rows], self._qvel[rows]
        reward, terminated = self.task.evaluate(
            before, qpos, actions, self._step_seconds
        )
        if failed is not None:
            reward = np.where(failed[rows], np.nan, reward)
        return self.task.observe(qpos, qvel), reward, terminated

    def _advance(self, ids: np.ndarray | None) -> np.ndarray | None:
        """Run the physics of one step.

        MuJoCo answers a non-finite state or control with a warning and puts the
        simulation back to its default state, which looks sound; so the warnings count.

        Returns:
            Which simulations failed, None if none did. # shape=(N,), dtype=bool
        """
        raised: Any = []
        try:
            self._batch.step(ids, nstep=self.task.frame_skip)
        except SimulationError as error:
            raised = error.ids
        warnings = self._batch.warning
        if not len(raised) and not warnings.any():
            return None
        failed = warnings[:, _DIVERGENCE_WARNINGS, 1].any(axis=1)
        failed[raised] = True
        warnings[...] = 0
        return failed
