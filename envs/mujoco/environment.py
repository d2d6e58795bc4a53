"""The environment that steps MuJoCo tasks by `mujoco.batch.Batch`.

The simulations of a batch run on MuJoCo's own thread pool, with the same bits at any
number of threads. Each is a row of MuJoCo's integration state, which can be read,
written and copied.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

from pes_rl.envs.mujoco.contact_forces import (
    can_compute_in_step,
    load_with_contact_forces,
)
from pes_rl.envs.mujoco.messages import warnings_logged
from pes_rl.envs.mujoco.tasks import TASKS, Fields, load_model

_DIVERGENCE_WARNINGS = [
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]


def _profiler_clock() -> ctypes.c_void_p:
    """MuJoCo's variable `mjcb_time`, or an unused one where it cannot be found."""
    try:
        library = ctypes.CDLL(mujoco._callbacks.__file__)
        return ctypes.c_void_p.in_dll(library, "mjcb_time")
    except (OSError, ValueError):  # Windows searches only that one file.
        return ctypes.c_void_p()


_PROFILER_CLOCK = _profiler_clock()


@contextlib.contextmanager
def profiler_off() -> Iterator[None]:
    """Context in which MuJoCo's profiler is off.

    MuJoCo's Python package switches the profiler on for the whole process. It reads the
    clock a dozen times in each Runge-Kutta stage, which is a fifth of the time of
    Swimmer's step, and nothing here uses its measurements. Afterwards it is on again.
    """
    clock = _PROFILER_CLOCK.value
    _PROFILER_CLOCK.value = None
    try:
        yield
    finally:
        _PROFILER_CLOCK.value = clock


def _can_collide(model: mujoco.MjModel) -> bool:
    """Whether any two geoms of the model can touch each other."""
    contype = np.bitwise_or.reduce(model.geom_contype)
    conaffinity = np.bitwise_or.reduce(model.geom_conaffinity)
    return bool(contype & conaffinity) or model.npair > 0


class MujocoEnvironment:
    """A batch of simulations of one task, as a `HostEnvironment`.

    `save` returns the state rows (mjSTATE_INTEGRATION), shape (N, S), float64, and the
    fields after the last step that the task's next reward needs.

    Args:
        name: A key of `TASKS`.
        num_threads: Threads that step the batch; 0 uses every CPU. It changes only the
            speed.

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
        needs_contact_forces = "cfrc_ext" in self.task.fields
        in_step = needs_contact_forces and can_compute_in_step()
        load = load_with_contact_forces if in_step else load_model
        self.model = load(self.task)
        self._one_by_one = needs_contact_forces and not in_step
        if not _can_collide(self.model):
            # The search for contacts would take a tenth of Swimmer's step.
            self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        if self.model.ntree == 1:
            # One tree is one island. Finding that at every stage takes a twentieth of
            # Swimmer's step, and the solver gives the same bits without it.
            self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
        # float32, as in Gymnasium; MuJoCo clips actions to its own float64 range.
        limits = self.model.actuator_ctrlrange.astype(np.float32)
        self.action_low, self.action_high = limits.T.copy()
        self.horizon = self.task.horizon
        self._num_threads = num_threads
        self._step_seconds = self.model.opt.timestep * self.task.frame_skip
        self._scratch = mujoco.MjData(self.model)
        self._batches: dict[int, Batch] = {}
        self.allocate(1)
        first = self.task.observe(self.model, self._fields)
        self.observation_size = first.shape[1]

    def allocate(self, num_simulations: int) -> None:
        if num_simulations not in self._batches:
            batch = Batch(
                self.model,
                num_simulations,
                nthread=self._num_threads,
                persistent=self._one_by_one,
            )
            batch.reset()
            self._first_row = batch.state[0].copy()
            self._batches[num_simulations] = batch
        self._batch = self._batches[num_simulations]
        self._ctrl = self._batch.bind("ctrl")
        names = {"qpos", "qvel", *self.task.fields}
        self._fields: Fields = {name: self._batch.bind(name) for name in names}
        if self._one_by_one:
            shape = (num_simulations, self.model.nbody, 6)
            self._fields["cfrc_ext"] = np.zeros(shape)
        self._before = {
            name: self._fields[name].copy() for name in self.task.previous_fields
        }

    def load(self, state: tuple[np.ndarray, Fields]) -> None:
        rows, before = state
        self.allocate(len(rows))
        self._batch.state[:] = rows
        for name in before:
            self._before[name][:] = before[name]

    def save(self) -> tuple[np.ndarray, Fields]:
        before = {name: field.copy() for name, field in self._before.items()}
        return self._batch.state.copy(), before

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        qpos, qvel = self._fields["qpos"], self._fields["qvel"]
        for i, key in zip(ids, keys, strict=True):
            self._batch.state[i] = self._first_row
            generator = np.random.default_rng(key)
            qpos[i], qvel[i] = self.task.first_state(self.model, generator)
        # As in Gymnasium's set_state; it also sets the constraint solver's first guess.
        with warnings_logged():
            self._batch.forward(ids)
        self._store_previous(ids)
        now = _at(self._fields, ids)
        if "cfrc_ext" in now:  # Only a step computes contact forces.
            now["cfrc_ext"] = np.zeros_like(now["cfrc_ext"])
        return self.task.observe(self.model, now)

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = slice(None) if ids is None else ids
        self._ctrl[rows] = actions
        failed = self._step_physics(ids)
        if self._one_by_one:
            self._compute_contact_forces(ids)
        before, now = _at(self._before, ids), _at(self._fields, ids)
        reward, terminated = self.task.evaluate(
            self.model, before, now, actions, self._step_seconds
        )
        if failed is not None:
            reward = np.where(failed[rows], np.nan, reward)
        self._store_previous(rows)
        return self.task.observe(self.model, now), reward, terminated

    def _store_previous(self, rows: Any) -> None:
        """Store the fields that the reward of the next step compares with."""
        for name, field in self._before.items():
            field[rows] = self._fields[name][rows]

    def _compute_contact_forces(self, ids: np.ndarray | None) -> None:
        """Compute `cfrc_ext` where MuJoCo cannot have the plugin that does it.

        Each simulation is copied out of the batch, one after another.
        """
        for i in range(self._batch.nsim) if ids is None else ids:
            self._batch.get_data(int(i), self._scratch)
            mujoco.mj_rnePostConstraint(self.model, self._scratch)
            self._fields["cfrc_ext"][i] = self._scratch.cfrc_ext

    def _step_physics(self, ids: np.ndarray | None) -> np.ndarray | None:
        """Run the physics of one step.

        At a non-finite state or control MuJoCo raises a warning and resets the
        simulation to its default state, which is finite; so the warnings are checked.

        Returns:
            Which simulations failed, None if none did. # shape=(N,), dtype=bool
        """
        raised: Any = []
        try:
            with profiler_off(), warnings_logged():
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


def _at(fields: Fields, ids: np.ndarray | None) -> Fields:
    """The fields of the simulations `ids`; None gives all of them, not copied."""
    if ids is None:
        return fields
    return {name: field[ids] for name, field in fields.items()}
