"""A study: arms (settings with a name) times seeds, read from a TOML file or options.

title = "Swimmer-v5"
env = "swimmer"                    # or several: ["swimmer", "hopper"]
total_timesteps = 500_000          # any setting of pes_rl.train, for every arm
verify = {seeds = 1, evaluations = 9}   # what `compare --verify` runs of each arm

[[arm]]
name = "PES, published settings"
agent = "pes"
seeds = [3, 5, 7]                  # or "0-49"
sigma = 0.3                        # any setting of pes_rl.train, for this arm
vmap_seeds = true                  # train them together, in one program
"""

import dataclasses
import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pes_rl.config.train_config import TrainConfig, make_fitted_config
from pes_rl.envs.names import is_in_jax
from pes_rl.studies.time_limits import ask_in_own_process
from pes_rl.studies.toml_file import (
    check_text,
    read_seeds,
    read_toml,
    refuse_seed,
    wrong,
)


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        arm: Name of the arm that it belongs to.
        config: Its settings.
        folder_name: The arm's name as a folder, and the seed; the environment before
            them where the arm is run on several.
        vmap_seeds: Train it together with the arm's other seeds in one program.
    """

    arm: str
    config: TrainConfig
    folder_name: str
    vmap_seeds: bool = False

    def __post_init__(self) -> None:
        if self.vmap_seeds and not is_in_jax(self.config.env):
            raise ValueError(
                "vmap_seeds is for environments written in JAX (jax:, brax:, "
                f"...); drop it for {self.config.env}"
            )
        if self.vmap_seeds and self.config.devices != 1:
            raise ValueError(
                f"vmap_seeds and devices={self.config.devices} do not go together; "
                "drop one of them"
            )


@dataclass(frozen=True)
class VerifiedPart:
    """The part of each arm that `compare --verify` runs again.

    Attributes:
        seeds: The first seeds of the arm, at least one.
        evaluations: Stop after that many evaluations behind the start, with the
            schedules of the whole budget; None trains to the end.
    """

    seeds: int = 1
    evaluations: int | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "evaluations"):
            value = getattr(self, name)
            optional = name == "evaluations" and value is None
            if not optional and (type(value) is not int or value < 1):
                raise ValueError(
                    f"verify: {name} is {reprlib.repr(value)} and must be a whole "
                    "number from 1"
                )


@dataclass(frozen=True)
class Study:
    """A study: the runs that are compared.

    Attributes:
        title: Heading of the table and the figure.
        runs: Every run, arm by arm.
        verify: The part of it that shows whether its results are still true.
    """

    title: str
    runs: tuple[StudyRun, ...]
    verify: VerifiedPart = VerifiedPart()

    def __post_init__(self) -> None:
        names = Counter(run.folder_name for run in self.runs)
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            raise ValueError(
                f"runs {', '.join(twice[:5])} stand twice in the study; give each arm "
                "its own name and each of its seeds once"
            )
        if not self.runs:
            raise ValueError("the study has no run; name agents and seeds")

    @property
    def arms(self) -> list[str]:
        """The arms' names, in order."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    @property
    def envs(self) -> list[str]:
        """The environments' names, in order."""
        return list(dict.fromkeys(run.config.env for run in self.runs))


def read_study(path: Path) -> Study:
    """Read a study's TOML file.

    Raises:
        ValueError: If it cannot be read, or a setting is bad.
    """
    content = read_toml(path, "study")
    arms = content.pop("arm", [])
    if not isinstance(arms, list) or not all(isinstance(arm, dict) for arm in arms):
        raise wrong(path, "arm", arms, "tables, each under the line [[arm]]")
    title = check_text(path, "title", content.pop("title", path.stem))
    verify = _read_verify(path, content.pop("verify", {}))
    runs: list[StudyRun] = []
    for number, arm in enumerate(arms, 1):
        runs += _read_arm(f"{path}, arm {number}", {**content, **arm})
    try:
        return Study(title, tuple(runs), verify)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_verify(path: Path, part: Any) -> VerifiedPart:
    known = {"seeds", "evaluations"}
    if not isinstance(part, dict) or not part.keys() <= known:
        raise wrong(
            path,
            "verify",
            part,
            "a table such as {seeds = 1}, with seeds, evaluations or both",
        )
    try:
        return VerifiedPart(**part)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_arm(where: str, settings: dict[str, Any]) -> list[StudyRun]:
    if "env" not in settings or "agent" not in settings:
        raise ValueError(f"{where} needs an env and an agent")
    agent = check_text(where, "agent", settings["agent"])
    name = check_text(where, "name", settings.pop("name", agent))
    env = settings["env"]
    for each in env if isinstance(env, list) and env else [env]:
        if not isinstance(each, str):
            raise wrong(where, "env", env, "a text, or a list of texts")
    together = settings.get("vmap_seeds", False)
    if not isinstance(together, bool):
        raise wrong(where, "vmap_seeds", together, "true or false")
    refuse_seed(where, settings)
    seeds = read_seeds(where, settings.pop("seeds", []))
    try:
        return _arm_runs(name, seeds, settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def make_study(
    envs: tuple[str, ...],
    agents: tuple[str, ...],
    seeds: tuple[int, ...],
    options: dict[str, Any],
    vmap_seeds: bool = False,
) -> Study:
    """A study of agents on environments and seeds, with the default settings."""
    runs: list[StudyRun] = []
    for agent in agents:
        settings = {"env": list(envs), "agent": agent, **options}
        settings["vmap_seeds"] = vmap_seeds
        runs += _arm_runs(agent, seeds, settings)
    return Study(", ".join(envs), tuple(runs))


def _arm_runs(name: str, seeds: Any, settings: dict[str, Any]) -> list[StudyRun]:
    env = settings["env"]
    envs = env if isinstance(env, list) else [env]
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in settings.items()
        if key not in ("env", "vmap_seeds")
    }
    together = settings.get("vmap_seeds", False)
    runs = []
    for env in envs:
        folder = _as_folder(f"{env} {name}" if len(envs) > 1 else name)
        for seed in seeds:
            config = make_fitted_config(
                env, ask=ask_in_own_process, seed=seed, **options
            )
            runs.append(StudyRun(name, config, f"{folder}-s{seed}", together))
    return runs


def _as_folder(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def settings_that_matter(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run, without those that do not change its results."""
    settings = dataclasses.asdict(config)
    unused = ("logdir", "num_threads", "video_interval", "video_length", "track")
    for name in unused:
        del settings[name]
    return settings
