"""Train a policy in your own environment written in JAX.

python examples/custom_jax_environment.py

From the command line, in this folder, the same environment is
--env jax:custom_jax_environment:WindyPointMass.
"""

import argparse

import jax
import jax.numpy as jnp

import pes_rl


class WindyPointMass:
    """A mass on a line, in gusts of wind, that is to be brought to rest at 0.

    Observation: position and velocity. Action: a force within -1 and 1. Reward: minus
    the squared distance from 0. An episode terminates where the mass is lost.
    """

    on_device = True  # written in JAX
    observation_size = 2
    action_low, action_high = (-1.0,), (1.0,)
    horizon = 100  # the engine cuts episodes here

    def __init__(self, gust: float = 0.02) -> None:
        self.gust = gust

    def reset(self, key):
        """Start anywhere between -1 and 1, at rest."""
        key, start = jax.random.split(key)
        position = jax.random.uniform(start, minval=-1.0, maxval=1.0)
        # The key stays in the state: both members of a pair meet the same wind.
        state = {"motion": jnp.stack([position, 0.0]), "key": key}
        return state, state["motion"]

    def step(self, state, action):
        """Apply the force and the wind for a tenth of a second."""
        key, wind = jax.random.split(state["key"])
        position, velocity = state["motion"]
        velocity += 0.1 * action[0] + self.gust * jax.random.normal(wind)
        position += 0.1 * velocity
        motion = jnp.stack([position, velocity])
        terminated = jnp.abs(position) > 10.0
        return {"motion": motion, "key": key}, motion, -(position**2), terminated


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

    pes_rl.train(
        WindyPointMass(),
        policy="linear",
        total_timesteps=options.total_timesteps,
        eval_interval=50_000,
        eval_episodes=100,
        logdir=options.logdir,
        callbacks=[Record()],
    )
    print(f"return before training {returns[0]:.2f}, after {returns[-1]:.2f}")


if __name__ == "__main__":
    main()
