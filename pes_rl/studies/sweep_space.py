"""A space of settings to search, read from a TOML file.

title = "Swimmer, PES"
env = "swimmer"
agent = "pes"
seeds = "100-102"                  # or a list; every trial trains all of them
total_timesteps = 200_000          # any setting of pes_rl.train, the same in each trial

[search]                           # any setting of pes_rl.train
sigma = { low = 0.05, high = 0.5, log = true }
num_pairs = { low = 4, high = 32 } # whole numbers if both ends are
truncation_length = [25, 50, 100]  # one of these
"""

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pes_rl.config.train_config import TrainConfig, make_fitted_config
from pes_rl.studies.time_limits import ask_in_own_process
from pes_rl.studies.toml_file import (
    check_text,
    one_line,
    read_seeds,
    read_toml,
    refuse_seed,
    wrong,
)


@dataclass(frozen=True)
class Space:
    """A space of settings that a sweep searches.

    Attributes:
        title: Heading of the report.
        env: The environment.
        agent: The gradient estimator.
        seeds: Seeds that every trial trains.
        fixed: Settings that are the same in each trial.
        search: For each setting that is searched, a list of choices or the keyword
            arguments of Optuna's `suggest_float` or `suggest_int`.
    """

    title: str
    env: str
    agent: str
    seeds: tuple[int, ...]
    fixed: dict[str, Any]
    search: dict[str, Any]

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Settings of an Optuna trial."""
        settings = {}
        for name, domain in self.search.items():
            if isinstance(domain, list):
                # Optuna stores texts and numbers: a list is chosen by its text.
                chosen = trial.suggest_categorical(
                    name, [json.dumps(c) for c in domain]
                )
                settings[name] = json.loads(chosen)
            elif _is_whole(domain):
                settings[name] = trial.suggest_int(name, **domain)
            else:
                settings[name] = trial.suggest_float(name, **domain)
        return settings

    def read(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Settings from the parameters of a trial, as Optuna stored them."""
        return {
            name: json.loads(value) if isinstance(self.search[name], list) else value
            for name, value in parameters.items()
        }

    def config(self, settings: dict[str, Any], seed: int) -> TrainConfig:
        """Settings of one run.

        Raises:
            ValueError: If they do not go together.
        """
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in {**self.fixed, **settings}.items()
        }
        return make_fitted_config(
            self.env, self.agent, ask=ask_in_own_process, seed=seed, **options
        )

    def example(self, end: str = "low") -> dict[str, Any]:
        """Settings at one end, `low` or `high`, of every domain."""
        return {
            name: domain[0 if end == "low" else -1]
            if isinstance(domain, list)
            else domain[end]
            for name, domain in self.search.items()
        }

    @property
    def fingerprint(self) -> str:
        """Everything that decides the meaning of a trial's value, as text."""
        parts = (self.env, self.agent, self.seeds, self.fixed, self.search)
        return json.dumps(parts, sort_keys=True)


def read_space(path: Path) -> Space:
    """Read a space's TOML file.

    Raises:
        ValueError: If it cannot be read, or a setting or a domain is bad.
    """
    content = read_toml(path, "space")
    search = content.pop("search", {})
    if not isinstance(search, dict):
        raise wrong(path, "search", search, "a table, under the line [search]")
    if not search:
        raise ValueError(f"{path} searches nothing; give it a table [search]")
    if "env" not in content or "agent" not in content:
        raise ValueError(f"{path} needs an env and an agent")
    env = check_text(path, "env", content.pop("env"))
    agent = check_text(path, "agent", content.pop("agent"))
    title = check_text(path, "title", content.pop("title", f"{env} {agent}"))
    seeds = tuple(read_seeds(path, content.pop("seeds", [0])))
    if not seeds:
        raise ValueError(f"{path} has no seed; write seeds = [100] for example")
    refuse_seed(path, content)
    for name, domain in search.items():
        _check_name(path, name, content)
        _check_domain(f"{path}: the search of {one_line(name)}", domain)
    space = Space(title, env, agent, seeds, content, search)
    for end in ("low", "high"):  # Unknown names and bad values, before any trial.
        try:
            space.config(space.example(end), seeds[0])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return space


def _check_name(path: Path, name: str, fixed: dict[str, Any]) -> None:
    if name in fixed:
        raise ValueError(
            f"{path}: {one_line(name)} is searched and has the value "
            f"{reprlib.repr(fixed[name])} as well; drop one of them"
        )
    if name in ("env", "agent", "seed", "seeds", "title"):
        raise ValueError(f"{path}: {name} cannot be searched; search other settings")


def _check_domain(where: str, domain: Any) -> None:
    if isinstance(domain, list) and domain:
        _check_choices(where, domain)
        return
    known = {"low", "high", "log", "step"}
    if not isinstance(domain, dict) or not {"low", "high"} <= set(domain) <= known:
        raise ValueError(
            f"{where} is {reprlib.repr(domain)}; write a list of choices, or "
            "{ low = 0.1, high = 1.0 } with log = true or step = 0.1 where wanted"
        )
    for name in ("low", "high", "step"):
        if name in domain and type(domain[name]) not in (int, float):
            raise wrong(where, name, domain[name], "a number")
    low, high, log = domain["low"], domain["high"], domain.get("log", False)
    if not isinstance(log, bool):
        raise wrong(where, "log", log, "true or false")
    if not low < high or (log and low <= 0):
        raise ValueError(
            f"{where} goes from {low} to {high}; low must be below high, and above 0 "
            "with log"
        )
    if "step" in domain:
        _check_step(where, domain)


def _check_step(where: str, domain: dict[str, Any]) -> None:
    step, width = domain["step"], domain["high"] - domain["low"]
    if domain.get("log"):
        raise ValueError(f"{where} has log = true and a step; drop one of them")
    if _is_whole(domain) and not isinstance(step, int):
        raise wrong(where, "step", step, "a whole number, as low and high are")
    if not 0 < step <= width:
        raise wrong(where, "step", step, f"above 0 and at most high - low = {width}")


def _check_choices(where: str, choices: list[Any]) -> None:
    kinds = {_kind(choice) for choice in choices}
    if len(kinds) > 1 or not kinds <= {"number", "text", "true or false", "list"}:
        raise ValueError(
            f"{where} is {reprlib.repr(choices)}; write choices of one kind: numbers, "
            "texts, true and false, or lists"
        )


def _kind(choice: Any) -> str:
    kinds = {int: "number", float: "number", str: "text", bool: "true or false"}
    if isinstance(choice, list):
        return "list" if all(_kind(part) == "number" for part in choice) else "other"
    return kinds.get(type(choice), "other")


def _is_whole(domain: dict[str, Any]) -> bool:
    return isinstance(domain["low"], int) and isinstance(domain["high"], int)
