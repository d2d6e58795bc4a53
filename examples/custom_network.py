"""Train your own network, a flax module, and use it.

python examples/custom_network.py
"""

import argparse

import gymnasium
import jax.numpy as jnp
from flax import linen

import pes_rl


class TwoStreams(linen.Module):
    """A linear map and a small network, added: one observation in, one action out.

    Positions and velocities of an inverted pendulum; the network sees sine and cosine
    of the angle besides.
    """

    action_size: int = 1
    units: int = 8

    @linen.compact
    def __call__(self, observation):
        """Output of shape (action_size,) for an observation of shape (O,)."""
        angle = observation[1]
        features = jnp.append(observation, jnp.stack([jnp.sin(angle), jnp.cos(angle)]))
        hidden = linen.silu(linen.Dense(self.units)(features))
        # With last layers of zeros, the first policy does nothing.
        zeros = linen.initializers.zeros
        linear = linen.Dense(self.action_size, kernel_init=zeros, use_bias=False)
        return linear(observation) + linen.Dense(self.action_size, kernel_init=zeros)(
            hidden
        )


def main() -> None:
    """Train, load, play."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=100_000)
    parser.add_argument("--logdir", default=None)
    options = parser.parse_args()
    result = pes_rl.train(
        "inverted_pendulum",
        policy=TwoStreams(),
        total_timesteps=options.total_timesteps,
        logdir=options.logdir,
    )
    # The file holds no code, so the module is given again.
    policy = pes_rl.load_policy(result.folder, policy=TwoStreams())
    env = gymnasium.make("InvertedPendulum-v5")
    returns = []
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            observation, reward, fallen, truncated, _ = env.step(policy(observation))
            total, ended = total + float(reward), fallen or truncated
        returns.append(total)
    print(f"returns of five episodes: {', '.join(f'{r:.0f}' for r in returns)}")


if __name__ == "__main__":
    main()
