"""A callback that shows videos of the mean policy in TensorBoard during training."""

from itertools import islice

from pes_rl.config.train_config import TrainConfig
from pes_rl.learner.evaluation import Evaluation
from pes_rl.rendering.film import make_film
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.runtime.output import print_line
from pes_rl.training.callbacks import Callback, Run

_SIZE = 200
"""Pixels: a video of 100 pictures then takes some 400 KB of the event file."""


class VideoCallback(Callback):
    """Videos of the start of an episode: at the first evaluation, then at intervals.

    Each video shows the same episode (seed 0 of the environment), played by the current
    policy in a separate simulation. A video that fails is reported in a line and
    training continues.

    Args:
        config: Settings of the run, with a `video_interval`.

    Raises:
        ValueError: If the environment cannot be drawn here.
    """

    def __init__(self, config: TrainConfig) -> None:
        assert config.video_interval is not None  # else the trainer makes none
        self._interval, self._length = config.video_interval, config.video_length
        self._film = make_film(config, _SIZE)
        self._next = 0

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        del evaluation
        if run.timesteps < self._next:
            return
        self._next = (run.timesteps // self._interval + 1) * self._interval
        film = self._film
        try:
            policy = run.policy
            assert isinstance(policy, TrainedPolicy)  # make_film refuses what has none
            steps = islice(film.play(policy, 0, film.stride), self._length)
            pictures = [picture for _, picture in steps if picture is not None]
            run.log_video("eval/video", pictures, film.fps / film.stride)
        except Exception as error:  # of the simulation, the renderer or the disk
            print_line(f"video failed, training continues: {error!r}")
