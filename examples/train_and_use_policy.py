"""Train a policy, load it from its run folder, and let it act in Gymnasium.

python examples/train_and_use_policy.py
"""

import argparse

import gymnasium

import pes_rl


def play_episode(policy: pes_rl.TrainedPolicy, seed: int) -> float:
    """The return of one episode of Gymnasium's environment."""
    env = gymnasium.make("InvertedPendulum-v5")
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total += float(reward)
        ended = terminated or truncated
    env.close()
    return total


def main() -> None:
    """Train, load, play."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=100_000)
    parser.add_argument("--logdir", default=None)
    options = parser.parse_args()
    result = pes_rl.train(
        "inverted_pendulum",
        agent="pes",
        total_timesteps=options.total_timesteps,
        logdir=options.logdir,
    )
    # Loading needs NumPy only: no JAX, and no code from the file is executed.
    policy = pes_rl.load_policy(result.folder, which="best")
    returns = [play_episode(policy, seed) for seed in range(5)]
    print(f"returns of five episodes: {', '.join(f'{r:.0f}' for r in returns)}")


if __name__ == "__main__":
    main()
