"""Pictures of an environment that a policy acts in, without a screen.

Native MuJoCo tasks and those in closed form are drawn through the Gymnasium environment
that is the same task, Brax's by Brax's own renderer, which is MuJoCo's, and
Playground's by MuJoCo's renderer. An own environment in JAX draws itself.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import jax
import numpy as np

from pes_rl.assembly.factories import episode_steps, make_environment
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs.gymnasium.results import describe, raise_broken
from pes_rl.envs.gymnasium.space_data import describe_spaces
from pes_rl.envs.names import PYTHON_PREFIX
from pes_rl.rendering.gl_backend import choose_gl_backend
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)

Steps = Iterator[tuple[float, np.ndarray | None]]

_FPS = 25
"""Pictures a second at most; more would double a file and show no more."""


@dataclass(frozen=True)
class Film:
    """A source of pictures of episodes.

    Attributes:
        fps: Steps of the environment in a second of its own time.
        play: A function (act, seed, stride) -> steps of one episode: the reward of each
            and, at the first and every `stride`-th after it, the picture, else None.
            # shape=(height, width, 3), dtype=uint8
    """

    fps: float
    play: Callable[[TrainedPolicy, int, int], Steps]

    @property
    def stride(self) -> int:
        """Steps from one picture to the next, for about 25 pictures a second."""
        return max(1, round(self.fps / _FPS))


def make_film(config: TrainConfig, size: int) -> Film:
    """Make the film of a run's environment.

    Args:
        config: Settings of the run.
        size: Height and width of MuJoCo's pictures, pixels; other Gymnasium
            environments choose theirs.

    Raises:
        ValueError: If the environment cannot be drawn, of which a picture makes sure.
    """
    family, _, name = (
        config.env.partition(":") if ":" in config.env else ("", "", config.env)
    )
    if family == "gym":
        return _film_gymnasium(name, json.loads(config.env_kwargs), config.horizon)
    if family == "brax":
        choose_gl_backend()
        return _film_brax(config, size)
    if family == "playground":
        choose_gl_backend()
        return _film_playground(config, size)
    if family == "jax" and ":" in name:
        return _film_own(config)
    if config.env.startswith(PYTHON_PREFIX):
        raise ValueError(
            f"{config.env} was passed to pes_rl.train as a Python object, which only "
            "that program can make again; name it as gym:ID or jax:PACKAGE:NAME, or "
            "film it in that program with pes_rl.load_policy"
        )
    if family == "gymnax":
        raise ValueError(f"{config.env} is not drawn: gymnax has no common renderer")
    if family not in ("", "jax"):
        raise ValueError(f"{config.env} has nothing to see; use a run on another task")
    choose_gl_backend()
    # Imports MuJoCo, which binds to the backend.
    from pes_rl.envs.mujoco.tasks import TASKS, load_model

    kwargs: dict[str, Any] = {"width": size, "height": size}
    if load_model(TASKS[name]).ncam:
        kwargs["camera_id"] = 0  # It follows the body, which Gymnasium's does not.
    return _film_gymnasium(TASKS[name].gymnasium_id, kwargs, config.horizon)


def _film_gymnasium(name: str, kwargs: dict[str, Any], horizon: int | None) -> Film:
    try:
        env = gymnasium.make(name, render_mode="rgb_array", **kwargs)
        env.reset(seed=0)
        picture = env.render()
    except Exception as error:  # each renderer has kinds of its own
        raise ValueError(f"Gymnasium cannot draw {name}: {error}") from error
    if not isinstance(picture, np.ndarray):
        raise ValueError(
            f"{name} cannot be drawn: it has no render mode rgb_array, only "
            f"{env.metadata.get('render_modes', [])}"
        )
    # Policies of older versions do not know them.
    spaces = describe_spaces(env.observation_space, env.action_space)

    def play(act: TrainedPolicy, seed: int, stride: int) -> Steps:
        act = replace(act, spaces=spaces)
        act.reset()
        observation, _ = env.reset(seed=seed)
        for step in itertools.count(1):
            action = act(observation)
            try:
                observation, reward, terminated, truncated, _ = env.step(action)
                picture: Any = env.render() if (step - 1) % stride == 0 else None
            except Exception as error:  # Whatever the user's code raises.
                raise_broken(f"{name}: step {step} of the film", error)
            yield float(reward), picture
            if terminated or truncated or step == horizon:
                return

    return Film(float(env.metadata.get("render_fps") or 30), play)


def _film_brax(config: TrainConfig, size: int) -> Film:
    environment = make_environment(config, config.env)
    system = environment.system
    if system is None:
        raise ValueError(f"{config.env} has no physics and so nothing to see")
    from brax.io import image

    model: Any = system.mj_model
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    camera = model.camera(0).name if model.ncam else None

    def draw(state: Any) -> np.ndarray:
        physics = state.pipeline_state
        return np.asarray(image.render_array(system, physics, size, size, camera))

    try:
        draw(jax.jit(environment.reset)(jax.random.key(0))[0])
    except Exception as error:  # such as a MuJoCo bound to another backend before
        raise ValueError(
            f"MuJoCo cannot draw {config.env} with MUJOCO_GL="
            f"{os.environ.get('MUJOCO_GL')}: {error}; set it before Python starts"
        ) from error
    return _film_device(config, environment, draw, environment.step_seconds)


def _film_playground(config: TrainConfig, size: int) -> Film:
    environment = make_environment(config, config.env)
    import mujoco  # only now that the backend is chosen

    model: Any = environment.model
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    data = mujoco.MjData(model)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        renderer = mujoco.Renderer(model, size, size)
    except Exception as error:  # each backend has kinds of its own
        raise ValueError(
            f"MuJoCo cannot draw {config.env} with MUJOCO_GL="
            f"{os.environ.get('MUJOCO_GL')}: {error}; set it before Python starts"
        ) from error

    def draw(state: Any) -> np.ndarray:
        for name in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
            setattr(data, name, np.asarray(getattr(state.data, name)))
        mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
        renderer.update_scene(data, camera=0 if model.ncam else -1)
        return renderer.render()

    return _film_device(config, environment, draw, environment.step_seconds)


def _film_own(config: TrainConfig) -> Film:
    environment = make_environment(config, config.env)
    draw = getattr(environment, "render", None)
    if draw is None:
        raise ValueError(
            f"{config.env} cannot be drawn: it has no method render(state), which "
            "returns a picture, uint8 of shape (height, width, 3)"
        )
    state, _ = environment.reset(jax.random.key(0))
    try:
        picture = np.asarray(draw(state))
    except Exception as error:  # Whatever the user's code raises.
        raise ValueError(
            f"{config.env}: render(state) raised {describe(error)}"
        ) from error
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"{config.env}: render(state) returned {picture.dtype} of shape "
            f"{picture.shape}; it must be uint8 of shape (height, width, 3)"
        )
    seconds = getattr(environment, "step_seconds", 1 / 30)
    return _film_device(config, environment, draw, seconds)


def _film_device(
    config: TrainConfig,
    environment: Any,
    draw: Callable[[Any], Any],
    step_seconds: float,
) -> Film:
    """The film of an environment in JAX, of which `draw` makes a picture of a state."""
    reset, advance = jax.jit(environment.reset), jax.jit(environment.step)
    horizon = episode_steps(config, environment)

    def play(act: TrainedPolicy, seed: int, stride: int) -> Steps:
        act.reset()
        state, observation = reset(jax.random.key(seed))
        for step in range(1, horizon + 1):
            action = act(np.asarray(observation))
            state, observation, reward, ended = advance(state, action)
            picture = np.asarray(draw(state)) if (step - 1) % stride == 0 else None
            yield float(reward), picture
            if ended:
                return

    return Film(1.0 / step_seconds, play)
