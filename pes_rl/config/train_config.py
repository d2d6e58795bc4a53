"""The settings of a training run, as documented options."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

import numpy as np

from pes_rl.config.adaptive import (
    ask_time_limit,
    fit_defaults,
    known_horizon,
    must_ask,
)
from pes_rl.config.checks import check_config
from pes_rl.config.defaults import task_defaults
from pes_rl.envs.names import unknown_name


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Where a setting makes the gradient estimates biased, its text says so; all other
    settings leave them unbiased.
    """

    env: str
    """Environment: a native MuJoCo task (swimmer, hopper, ...), jax:swimmer, brax:NAME,
    gymnax:NAME, playground:NAME, jax:PACKAGE:NAME for one of your own written in JAX,
    or gym:ID for any of Gymnasium's; or unrolled:NAME, a computation graph with
    parameters of its own, whose returns are minus its losses."""
    agent: str
    """Gradient estimator: pes, gpes (new noise every noise_period steps), nres (noise
    reuse), pes-analytic, es (full episodes), truncated-es, ars, random-search; or, on
    differentiable problems alone, tbptt, bptt, rtrl, uoro."""
    seed: int = 0
    """Seed of all random numbers of the run; the same seed gives the same run."""
    total_timesteps: int = 500_000
    """Budget of the run in environment steps; every step that training simulates
    counts."""
    num_pairs: int | None = None
    """Antithetic pairs P, two particles each; None for agents that perturb nothing."""
    num_particles: int | None = None
    """Particles N of agents without pairs: random-search, tbptt, bptt, rtrl, uoro."""
    truncation_length: int | None = None
    """Steps K of a partial unroll; None for agents that play whole episodes."""
    noise_period: int | None = None
    """Steps for which gpes keeps a perturbation; a multiple of the truncation
    length."""
    num_top_pairs: int | None = None
    """Number of pairs that ars uses, or fitness_shaping=top-pairs: those with the best
    returns."""
    fitness_shaping: Literal["none", "centered-ranks", "top-pairs"] = "none"
    """What takes the place of the losses of each unroll in pes, nres, es and
    truncated-es: their ranks, from -1/2 to 1/2, or those of num_top_pairs pairs alone
    (half of them, if not given). Biased: the sum of the losses of an episode's unrolls
    is lost with ranks, and top pairs are chosen for their states too."""
    search_radius: float | None = None
    """Half-width of the range around the first parameters in which random-search
    samples; None for the environment's own bounds, where it has such."""
    sigma: float | None = None
    """Standard deviation of the perturbations at the start; None for agents that
    perturb nothing."""
    final_sigma: float | None = None
    """Standard deviation at the end of the budget, approached geometrically; None keeps
    sigma constant."""
    sigma_learning_rate: float | None = None
    """Rate at which pes, nres, es or truncated-es adapts a sigma for each parameter, as
    PGPE (which has 0.1); None does not. The estimate is unbiased for the loss smoothed
    by the sigmas in use, and is multiplied by their squares, divided by the mean."""
    stagger: bool = False
    """Spread the particles over the episode, where episodes are cut into unrolls."""
    restart_at_once: bool = False
    """Let pes begin an episode in the unroll in which one ended, so that no step is
    idle. Biased where ends depend on the policy: how much of the new episode falls into
    the unroll is then credited to the perturbation that ended the old one."""
    trace_decay: float = 1.0
    """Factor between 0 and 1 by which pes multiplies its accumulators in each unroll.
    Biased below 1, with less variance; 0 sees the effects within an unroll alone."""
    critic_discount: float | None = None
    """Discount in (0, 1] a step, such as 0.995, of the critic of pes: a prediction of
    the losses to come from the observation, which is subtracted from the losses. None
    for no critic. Unbiased over an episode with trace_decay=1; below 1 it takes away
    bias, as far as the critic is right."""
    orthogonal: bool = False
    """Make the pairs' perturbations of gpes, nres or es orthogonal: less variance."""
    pairs_per_chunk: int | None = None
    """Pairs whose perturbations are held at once, a divisor of num_pairs, by pes, nres,
    es and truncated-es; None takes all, or as many as fit in 1 GiB, and on several
    devices each one's share. It changes the order of a sum and nothing else."""
    optimizer: Literal["sgd", "adam", "clipup"] = "adam"
    """Optimiser that takes the step: optax's sgd or adam, or clipup, whose step has a
    length that does not depend on the scale of the rewards."""
    adam_b1: float = 0.9
    """Decay rate of Adam's running mean of the gradient."""
    clipup_max_speed: float | None = None
    """Longest step of clipup at the start, as a Euclidean length over all parameters;
    it decays with the learning rate. None takes twice the learning rate."""
    clipup_momentum: float = 0.9
    """Share of its velocity that an update of clipup keeps."""
    learning_rate: float = 0.01
    """Learning rate at the start."""
    learning_rate_decay: Literal["constant", "linear"] = "constant"
    """Keep the learning rate constant, or decrease it linearly to 0 over the
    budget."""
    min_schedule_timesteps: int = 0
    """Environment steps over which the schedules of learning rate, sigma and reward
    shift go where the budget is shorter: they then end before their last value."""
    weight_decay: float = 0.0
    """Weight decay as in AdamW: each step subtracts learning_rate * weight_decay *
    theta. The optimum moves towards 0."""
    normalize_returns: bool = False
    """Divide the step by the standard deviation of the particles' returns (ARS V1).
    Biased: updates in which returns differ little weigh more."""
    normalize_observations: bool = False
    """Give the policy (observation - mean) / std, by running statistics of all that
    training has acted on (ARS V2). Unbiased for statistics that stand still; they move
    less and less."""
    policy: str = "linear"
    """Policy: linear (one linear map), mlp (a network), gru (a recurrent network), or
    package:Name, a flax or equinox module, or functions, of your own, which Python
    imports."""
    bias: bool = True
    """Give the layers of a linear, mlp or gru policy a bias."""
    observation_mask: str | None = None
    """Entries of the observation that the policy does not see: indices and ranges such
    as 27:105, or names of parts (contact-forces, body-inertias, body-velocities,
    actuator-forces) of ant, humanoid and humanoidstandup, separated by commas."""
    hidden_sizes: tuple[int, ...] = (32, 32)
    """Units of the hidden layers of an mlp policy, or of the layers of a gru."""
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    """Activation function of the hidden layers of an mlp policy."""
    clip_actions: bool = True
    """Clip actions to the action space."""
    sample_actions: bool = False
    """Choose discrete actions of a gym:ID environment in training at random, with the
    probabilities of the softmax of the policy's outputs, by random numbers that the
    members of a pair share. It changes what is optimised: evaluations, and the trained
    policy, take the choice of the greatest output."""
    squash_actions: bool = False
    """Put tanh, scaled to the action space, in the place of clipping."""
    horizon: int | None = None
    """Steps T after which an episode is cut; None takes the environment's."""
    shortest_horizon: int | None = None
    """Least time limit of a training episode, where limits differ from episode to
    episode up to the horizon; None gives all episodes the horizon. The objective is
    then the mean over these limits, estimated without bias; evaluations play whole
    episodes."""
    horizon_schedule: Literal["log-uniform", "growing"] = "log-uniform"
    """With shortest_horizon: draw each episode's limit log-uniformly, or let it grow
    geometrically from the shortest to the horizon."""
    horizon_growth_episodes: int = 100
    """Episodes of each particle over which a growing limit reaches the horizon."""
    reward_shift: float = 0.0
    """Subtracted from the reward of every training step, such as a survival bonus of 1;
    reported returns are without it. It changes what is optimised where episodes end
    early."""
    final_reward_shift: float | None = None
    """Reward shift at the end of the budget, approached linearly; None keeps it
    constant. From 1 to 0, a survival bonus of 1 grows from nothing to its value;
    evaluations always have the true reward."""
    diverged_loss: float | None = None
    """Loss of the step at which a simulation diverges (NaN), which ends its episode.
    None takes 0 in an environment, and the value of an unrolled problem."""
    env_kwargs: str = "{}"
    """Keyword arguments of a gym:ID, brax:NAME, gymnax:NAME, playground:NAME or
    jax:PACKAGE:NAME environment, or options of an unrolled:NAME problem (such as data,
    data_folder, objective), as a JSON object."""
    backend: str | None = None
    """Physics backend of a Brax environment, or of Playground's: jax or warp."""
    vectorization: Literal["auto", "sync", "async", "envpool"] = "auto"
    """How a gym:ID environment's simulations are stepped: one after another (sync), in
    worker processes (async), or by EnvPool; auto takes async where steps are slow."""
    devices: int = 1
    """Devices (GPUs, TPU cores) that share the particles of an environment written in
    JAX, of each process if there are several; 0 takes all. The pairs, or particles
    without pairs, must be a multiple."""
    num_threads: int = 0
    """Threads of a native MuJoCo environment or of EnvPool, or worker processes; 0
    takes every CPU."""
    workers: int = 0
    """Ray workers that share the particles of a native MuJoCo or gym:ID environment,
    num_threads each (of which 0 is then one); 0 trains in this process."""
    ray_address: str | None = None
    """Ray cluster of the workers, auto or HOST:PORT, on one of its machines; None
    starts a local Ray."""
    worker_timeout: float = 600.0
    """Seconds after which a worker that has not answered is given up and replaced."""
    eval_interval: int = 25_000
    """Environment steps between two evaluations of the mean policy."""
    eval_episodes: int = 10
    """Fresh episodes of an evaluation during training."""
    final_eval_episodes: int = 100
    """Fresh episodes of the evaluation at the end."""
    final_eval_env: str | None = None
    """Environment of the evaluation at the end, such as swimmer for a run on
    jax:swimmer; None takes that of the training."""
    threshold: float | None = None
    """Mean evaluation return at which the task counts as solved."""
    stop_at_threshold: bool = False
    """End the run at the first evaluation that reaches the threshold."""
    log_interval: int = 10
    """Updates between two rows of the log."""
    checkpoint_interval: int = 100_000
    """Environment steps between two checkpoints."""
    video_interval: int | None = None
    """Environment steps between two films of the mean policy in TensorBoard, each at
    the evaluation that comes next; None films none."""
    video_length: int = 100
    """Steps of such a film at most; it is of the start of an episode."""
    track: Literal["wandb", "trackio"] | None = None
    """Send the log and films to Weights & Biases or to Trackio as well (pip install
    'pes-rl[wandb]' or 'pes-rl[trackio]'); their environment variables, such as
    WANDB_MODE=offline and TRACKIO_DIR, say where to."""
    logdir: str | None = None
    """Folder of the run; None makes runs/ENV/AGENT-sSEED-TIME."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple) and isinstance(value, list | tuple):
                value = tuple(map(_as_plain, value))
            object.__setattr__(self, field.name, _as_plain(value))
        check_config(self)


def _as_plain(value: Any) -> Any:
    """Python's number for one of NumPy's, which `config.json` could not hold."""
    return value.item() if isinstance(value, np.generic) else value


def make_config(
    env: str, agent: str, *, env_horizon: int | None = None, **options: Any
) -> TrainConfig:
    """The default settings of a task that fit `options`, and these options.

    Args:
        env: Name of the environment.
        agent: Name of the gradient estimator.
        env_horizon: Time limit of the environment in steps, where it has been made;
            None takes that of Gymnasium's registry, if it is there. Of other names
            `make_fitted_config` asks the environment.
        options: Settings, by their names in `TrainConfig`.

    Raises:
        ValueError: If an option is unknown or its value bad.
    """
    known = {field.name: field.default for field in fields(TrainConfig)}
    for name, value in (("env", env), ("agent", agent)):
        if not isinstance(value, str):
            raise ValueError(f"{name}={value!r} must be a text")
    for name in options:
        if name not in known:
            raise ValueError(unknown_name("option", name, list(known)))
    defaults = {name: value for name, value in known.items() if value is not MISSING}
    task = task_defaults(env, agent)
    if options.get("policy", task.get("policy")) != task.get("policy"):
        task.pop("hidden_sizes", None)  # They are of the task's own policy.
    defaults |= task
    horizon = known_horizon(env, {**defaults, **options}) or env_horizon
    settings = fit_defaults(defaults, options, horizon)
    return TrainConfig(env=env, agent=agent, **settings)


def make_fitted_config(
    env: str,
    agent: str,
    *,
    ask: Callable[[str, str], int | None] = ask_time_limit,
    **options: Any,
) -> TrainConfig:
    """As `make_config`, with defaults that fit a time limit only the environment knows.

    Where such a default is needed, an environment of `gymnax:`, `playground:` or
    `jax:package:Name` is asked: its package is imported, which may start JAX.

    Args:
        env: Name of the environment.
        agent: Name of the gradient estimator.
        ask: Finds the time limit from the name and `env_kwargs`; None where it cannot.
        options: Settings, by their names in `TrainConfig`.

    Raises:
        ValueError: If an option is unknown or its value bad.
    """
    config = make_config(env, agent, **options)
    if not must_ask(env, vars(config), options):
        return config
    limit = ask(env, config.env_kwargs)
    return make_config(env, agent, env_horizon=limit, **options)
