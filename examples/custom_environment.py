"""Train a policy in your own Gymnasium environment.

python examples/custom_environment.py
"""

import argparse

import gymnasium
import numpy as np
from gymnasium.spaces import Box

import pes_rl


class PointMass(gymnasium.Env):
    """A mass on a line that is to be brought to rest at 0.

    Observation: position and velocity. Action: a force within -1 and 1. Reward: minus
    the squared distance from 0, and a small cost of the force.
    """

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        """Start anywhere between -1 and 1, at rest."""
        super().reset(seed=seed, options=options)
        self.position, self.velocity = self.np_random.uniform(-1.0, 1.0), 0.0
        return self._observe(), {}

    def step(self, action):
        """Apply the force for a tenth of a second."""
        force = float(action[0])
        self.velocity += 0.1 * force
        self.position += 0.1 * self.velocity
        reward = -(self.position**2) - 0.01 * force**2
        return self._observe(), reward, False, False, {}

    def _observe(self):
        return np.array([self.position, self.velocity], np.float32)


def main() -> None:
    """Train, and compare the return before and after."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=200_000)
    parser.add_argument("--logdir", default=None)
    options = parser.parse_args()
    returns: list[float] = []

    class Record(pes_rl.Callback):
        """Keeps the mean return of each evaluation."""

        def on_evaluation(self, run, evaluation):
            returns.append(float(evaluation.returns.mean()))

    # The environment has no time limit of its own, so the horizon cuts its episodes.
    pes_rl.train(
        PointMass,
        horizon=100,
        policy="linear",
        total_timesteps=options.total_timesteps,
        eval_interval=10_000,
        logdir=options.logdir,
        callbacks=[Record()],
    )
    print(f"return before training {returns[0]:.2f}, after {returns[-1]:.2f}")


if __name__ == "__main__":
    main()
