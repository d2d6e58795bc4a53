"""From settings to objects: environment, policy, rollout, estimator, learner."""
