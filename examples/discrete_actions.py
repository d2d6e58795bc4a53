"""Train on CartPole, whose actions are choices, and use the policy in Gymnasium.

python examples/discrete_actions.py
"""

import argparse

import gymnasium

import pes_rl


def play_episode(policy: pes_rl.TrainedPolicy, seed: int) -> float:
    """The return of one episode."""
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        action = policy(observation)  # an int: 0 pushes to the left, 1 to the right
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        ended = terminated or truncated
    env.close()
    return total


def main() -> None:
    """Train, load, play."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=40_000)
    parser.add_argument("--logdir", default=None)
    options = parser.parse_args()
    # The reward is 1 at every step, whatever is done: only whole episodes differ, and
    # so es, which plays them to their end, learns faster here than pes.
    result = pes_rl.train(
        "gym:CartPole-v1",
        agent="es",
        num_pairs=8,
        total_timesteps=options.total_timesteps,
        eval_interval=10_000,
        normalize_observations=True,
        vectorization="sync",
        logdir=options.logdir,
    )
    policy = pes_rl.load_policy(result.folder, which="best")
    returns = [play_episode(policy, seed) for seed in range(5)]
    print(f"returns of five episodes: {', '.join(f'{r:.0f}' for r in returns)}")


if __name__ == "__main__":
    main()
