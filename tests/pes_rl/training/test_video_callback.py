"""Films of the policy in TensorBoard while it trains."""

import io
from typing import Any

import numpy as np
import pytest
from event_files import events
from PIL import Image
from quick_run import QUICK

import pes_rl
from pes_rl.rendering import gl_backend
from pes_rl.rendering.film import Film
from pes_rl.training import command as train, video_callback as training_films


def make_run(folder, **options):
    return pes_rl.train("swimmer", logdir=folder, **{**QUICK, **options})


def films(folder):
    """Steps, and the pictures shown then. # shape=(pictures, height, width, 3)"""
    found = []
    for event in events(folder):
        for value in event.summary.value:
            if value.tag == "eval/video":
                gif: Any = Image.open(io.BytesIO(value.image.encoded_image_string))
                assert gif.size == (value.image.width, value.image.height)
                pictures = []
                for number in range(gif.n_frames):
                    gif.seek(number)
                    pictures.append(np.asarray(gif.convert("RGB")))
                found.append((event.step, np.stack(pictures)))
    return found


def test_films_are_shown_and_change_nothing(tmp_path):
    try:
        gl_backend.choose_gl_backend()
    except ValueError as error:
        pytest.skip(str(error))
    shown = make_run(tmp_path / "shown", video_interval=100, video_length=10)
    plain = make_run(tmp_path / "plain")
    np.testing.assert_array_equal(shown.theta, plain.theta)
    # Evaluations are at 0, 80, 160 and 240.
    (first, before), (second, after), (third, _) = films(shown.folder)
    assert (first, second, third) == (0, 160, 240)
    assert before.shape == after.shape == (10, 200, 200, 3)
    assert before.std() > 5
    # The same first state, and another policy.
    apart = abs(before.astype(float) - after).mean((1, 2, 3))
    assert apart[-1] > 2 * apart[0]


def grey_film(plays):
    """One whose second play fails."""

    def play(act, seed, stride):
        plays.append(act.theta)
        for _ in range(3):
            yield 0.0, np.full((8, 8, 3), 100, np.uint8)
            if len(plays) == 2:
                raise RuntimeError("the context is lost")

    return Film(25.0, play)


def test_a_film_that_fails_is_said_and_training_goes_on(tmp_path, monkeypatch, capsys):
    plays = []
    monkeypatch.setattr(training_films, "make_film", lambda *_: grey_film(plays))
    result = make_run(tmp_path / "run", video_interval=1)
    assert result.summary["total_timesteps"] == 240
    assert capsys.readouterr().out.count("video failed, training continues") == 1
    assert [step for step, _ in films(result.folder)] == [0, 160, 240]
    assert plays[0].tolist() != plays[-1].tolist() == result.theta.tolist()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("unrolled:toy-regression", "has nothing to see"),
        ("swimmer", "MuJoCo cannot draw with egl or osmesa; install"),
    ],
)
def test_what_cannot_be_filmed_is_said_at_the_start(
    tmp_path, monkeypatch, capsys, env, message
):
    monkeypatch.setattr(gl_backend, "_draws", lambda backend: False)
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "run"
    arguments = ["--env", env, "--video-interval", "1", "--logdir", str(folder)]
    assert train.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()
