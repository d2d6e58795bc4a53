"""Train a policy with a memory where an observation does not tell the whole state.

python examples/recurrent_policy.py
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

import pes_rl


class HiddenVelocity(gymnasium.Env):
    """A mass on a line that is to be brought to rest at 0; its velocity is hidden.

    Observation: the position. Action: a force within -1 and 1. Reward: minus the
    squared distance from 0. Without the velocity, a force that depends on the position
    is a spring, which swings for ever: whoever is to brake has to remember.
    """

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        """Start anywhere between -1 and 1, at rest."""
        super().reset(seed=seed, options=options)
        self.position, self.velocity = self.np_random.uniform(-1.0, 1.0), 0.0
        return self._observe(), {}

    def step(self, action):
        """Apply the force for a tenth of a second."""
        self.velocity += 0.1 * float(action[0])
        self.position += 0.1 * self.velocity
        return self._observe(), -(self.position**2), False, False, {}

    def _observe(self):
        return np.array([self.position], np.float32)


def play_episode(policy: pes_rl.TrainedPolicy, seed: int) -> float:
    """The return of one episode, in which the policy remembers what it has seen."""
    env, total = HiddenVelocity(), 0.0
    policy.reset()  # forget the episode before
    observation, _ = env.reset(seed=seed)
    for _ in range(100):
        observation, reward, *_ = env.step(policy(observation))
        total += float(reward)
    return total


def main() -> None:
    """Train a linear policy and a recurrent one, and compare them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=200_000)
    parser.add_argument("--logdir", type=Path, default=None)
    options = parser.parse_args()
    policies: dict[str, dict[str, Any]] = {"linear": {}, "gru": {"hidden_sizes": (8,)}}
    for name, settings in policies.items():
        result = pes_rl.train(
            HiddenVelocity,
            policy=name,
            horizon=100,
            num_pairs=16,
            truncation_length=50,
            sigma=0.1,
            optimizer="adam",
            learning_rate=0.1,
            total_timesteps=options.total_timesteps,
            logdir=options.logdir and options.logdir / name,
            **settings,
        )
        policy = pes_rl.load_policy(result.folder, "last")
        mean = np.mean([play_episode(policy, seed) for seed in range(20)])
        print(f"{name}: mean return of 20 episodes {mean:.2f}")


if __name__ == "__main__":
    main()
