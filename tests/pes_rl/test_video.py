"""Films of policies: what is written, what is drawn, what cannot be."""

import dataclasses
import gc
import os
from typing import Any

import gymnasium
import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from pes_rl import video
from pes_rl.assembly.factories import make_environment, make_policy
from pes_rl.config.train_config import make_config
from pes_rl.rendering import film as rendering, gl_backend
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.run_folder.writer import RunFolder
from pes_rl.training.metrics import COLUMNS

SMALL = ["--size", "64", "--steps", "6"]


def policy_of_zeros(config):
    policy = make_policy(config, make_environment(config, config.env))
    size = policy.observation_size
    zeros = np.zeros(policy.num_parameters)
    return TrainedPolicy(policy, zeros, np.zeros(size), np.ones(size))


def make_run(path, env):
    config = make_config(env, "pes")
    folder = RunFolder(path, COLUMNS)
    folder.write_config(dataclasses.asdict(config), None)
    folder.save_policy("best", policy_of_zeros(config))
    folder.close()
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def backend():
    """One that draws here, for all of this module's tests."""
    before = os.environ.get("MUJOCO_GL")
    try:
        gl_backend.choose_gl_backend()
    except ValueError as error:
        pytest.skip(str(error))
    yield os.environ.get("MUJOCO_GL")
    if before is None:
        os.environ.pop("MUJOCO_GL", None)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(rendering, "choose_gl_backend", lambda: None)


@pytest.mark.parametrize("env", ["swimmer", "jax:swimmer"])
def test_a_gif_shows_the_episode(tmp_path, quick, capsys, env):
    run = make_run(tmp_path / "run", env)
    out = tmp_path / "film.gif"
    arguments = [run, *SMALL, "--episodes", "2", "--out", str(out)]
    assert video.main(arguments) == 0
    assert "return of the first 6 steps: " in capsys.readouterr().out
    with Image.open(out) as film:
        assert isinstance(film, GifImagePlugin.GifImageFile)
        assert film.size == (64, 64)
        assert film.info["duration"] == 40  # 25 steps of Swimmer are a second
        pictures = []
        for number in range(film.n_frames):
            film.seek(number)
            pictures.append(np.asarray(film.convert("RGB")))
    assert all(picture.std() > 5 for picture in pictures)


# JAX warns of every fork; imageio's is ffmpeg's, which runs no JAX. And imageio leaves
# the pipes to ffmpeg for the garbage collector to close.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_mp4_can_be_read(tmp_path, quick):
    pytest.importorskip("imageio_ffmpeg")
    run = make_run(tmp_path / "run", "swimmer")
    assert video.main([run, *SMALL]) == 0
    film = np.asarray(imageio.mimread(tmp_path / "run" / "video" / "best.mp4"))
    assert film.shape == (6, 64, 64, 3)
    gc.collect()


def test_a_film_ends_with_its_episode_and_shows_a_part_of_fast_steps(quick):
    film = rendering.make_film(make_config("hopper", "pes", horizon=9), 64)
    assert film.fps == 125
    act = policy_of_zeros(make_config("hopper", "pes"))
    steps = list(film.play(act, 0, 5))
    shown = [number for number, (_, picture) in enumerate(steps) if picture is not None]
    assert len(steps) == 9
    assert shown == [0, 5]
    assert steps[0][0] == pytest.approx(1.0, abs=0.2)  # it stands


def test_the_camera_follows_the_body(quick, monkeypatch):
    """After 100 m the cheetah is as large in the picture as at the start."""
    made: list[Any] = []
    make = gymnasium.make

    def keep(*arguments: Any, **options: Any) -> Any:
        made.append(make(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(gymnasium, "make", keep)
    config = make_config("halfcheetah", "pes")
    steps = rendering.make_film(config, 64).play(policy_of_zeros(config), 0, 1)

    def body(picture: Any) -> int:
        red, _, blue = np.moveaxis(picture.astype(int), 2, 0)
        return int((red - blue > 60).sum())

    at_start = body(next(steps)[1])
    made[0].unwrapped.data.qpos[0] += 100
    far = body(next(steps)[1])
    assert at_start > 20 and 0.5 < far / at_start < 2


def test_the_backend_is_the_first_that_draws(monkeypatch):
    monkeypatch.setattr(gl_backend, "_draws", lambda backend: backend == "osmesa")
    monkeypatch.setattr(gl_backend.sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    gl_backend.choose_gl_backend()
    assert os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(ValueError, match=r"draw with egl; .* or unset MUJOCO_GL"):
        gl_backend.choose_gl_backend()
    monkeypatch.setattr(gl_backend, "_draws", lambda backend: False)
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ValueError, match=r"egl or osmesa; .* libegl1 .* libosmesa6\)$"):
        gl_backend.choose_gl_backend()


def test_what_cannot_be_filmed_ends_in_one_line(tmp_path, quick, capsys, monkeypatch):
    run = make_run(tmp_path / "run", "swimmer")
    assert video.main([run, "--out", "film.avi"]) == 2
    assert "film.avi must end in .mp4 or .gif" in capsys.readouterr().err
    assert video.main([run, "--steps", "0"]) == 2
    assert "steps=0 must be at least 1" in capsys.readouterr().err
    assert video.main([run, "--which", "last"]) == 2
    assert "is not a policy saved by pes_rl" in capsys.readouterr().err
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    assert video.main([run, "--out", "film.mp4"]) == 2
    assert "pip install 'pes-rl[video]'" in capsys.readouterr().err
    assert video.main([make_run(tmp_path / "fast", "brax:fast")]) == 2
    assert "no physics and so nothing to see" in capsys.readouterr().err


class Burning(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode, self.steps = render_mode, 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and self.render_mode is not None:
            raise OSError("the robot is on fire")
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


def test_an_environment_that_breaks_in_a_film_is_named():
    kind: Any = Burning
    gymnasium.register("Burning-v0", kind)
    try:
        config = make_config("gym:Burning-v0", "es", horizon=9)
        film = rendering.make_film(config, 64)
        steps = film.play(policy_of_zeros(config), 0, 1)
        with pytest.raises(ValueError, match="step 3 of the film raised OSError"):
            list(steps)
    finally:
        gymnasium.registry.pop("Burning-v0")
