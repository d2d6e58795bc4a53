"""Schedules, a callback, saving, loading and continuing a run, from Python.

python examples/python_api.py
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium

import pes_rl


class PrintReturns(pes_rl.Callback):
    """Print the mean return of each evaluation."""

    def on_evaluation(self, run, evaluation) -> None:
        print(f"{run.timesteps} steps: return {evaluation.returns.mean():.0f}")


def play_episode(policy: pes_rl.TrainedPolicy) -> float:
    """The return of an episode, with the loop of Stable-Baselines3's manual."""
    env = gymnasium.make("InvertedPendulum-v5")
    observation, _ = env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        action, _ = policy.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        ended = terminated or truncated
    env.close()
    return total


def main() -> None:
    """Train, save, load, play, continue."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=50_000)
    options = parser.parse_args()

    def learning_rate(progress):  # from 0 to 1 in the course of the run
        return 0.3 * (1 - progress)

    with TemporaryDirectory() as place:
        result = pes_rl.train(
            "inverted_pendulum",
            logdir=Path(place) / "run",
            total_timesteps=options.total_timesteps,
            eval_interval=options.total_timesteps // 4,
            learning_rate=learning_rate,
            callbacks=[PrintReturns()],
        )
        result.save(Path(place) / "pendulum")
        loaded = pes_rl.Result.load(Path(place) / "pendulum")
        print(f"return of an episode: {play_episode(loaded.policy):.0f}")
        # Twice the budget: the schedule is now that of a run of twice the length.
        continued = pes_rl.train(
            resume=result.folder,
            total_timesteps=2 * options.total_timesteps,
            learning_rate=learning_rate,
        )
        steps = continued.summary["total_timesteps"]
        print(f"continued to {steps} steps: {play_episode(continued.policy):.0f}")


if __name__ == "__main__":
    main()
