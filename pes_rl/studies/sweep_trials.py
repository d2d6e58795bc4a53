"""Trials of a sweep: Optuna chooses settings, each trial trains all seeds."""

import contextlib
import dataclasses
import shutil
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.config.train_config import TrainConfig
from pes_rl.learner.evaluation import Evaluation
from pes_rl.runtime.progress import Progress
from pes_rl.studies.report import short
from pes_rl.studies.runner import assemble_once, final_return
from pes_rl.studies.sweep_space import Space
from pes_rl.studies.worker_pool import block_ctrl_c, worker_pool
from pes_rl.training.callbacks import Callback, Run
from pes_rl.training.trainer import Trainer

_STUDY = "sweep"


def open_study(space: Space, out: Path) -> Any:
    """The Optuna study in `out`, new or continued; interrupted trials start again.

    Raises:
        ValueError: If Optuna is not installed, or the folder holds a sweep of another
            space.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError("a sweep needs Optuna; pip install 'pes-rl[sweep]'") from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=_storage(out),
        study_name=_STUDY,
        direction="maximize",
        load_if_exists=True,
        pruner=_pruner(space),
    )
    # A sampler of the same seed again would repeat its first draws.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials()))
    made_for = study.user_attrs.get("space", space.fingerprint)
    if made_for != space.fingerprint:
        raise ValueError(
            f"{out} holds a sweep of another space; choose another --logdir, or "
            "delete it"
        )
    study.set_user_attr("space", space.fingerprint)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def run_trials(space: Space, study: Any, out: Path, trials: int, jobs: int) -> None:
    """Run trials until `trials` are complete, pruned or refused, several at a time."""
    done = count_done(study)
    with (
        Progress(space.title, trials, "trials") as progress,
        worker_pool(jobs) as pool,
    ):
        progress.update(min(done, trials), _best(study))
        running: dict[Future[str], int] = {}
        while done < trials:
            while len(running) < min(jobs, trials - done):
                trial = study.ask()
                settings = space.suggest(trial)
                with block_ctrl_c():
                    future = pool.submit(_try, space, out, trial._trial_id, settings)
                running[future] = trial.number
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                number = running.pop(future)
                done += 1
                progress.update(
                    done, f"{_best(study)}; last: {number} {future.result()}"
                )


def count_done(study: Any) -> int:
    """Number of finished trials: complete, pruned, or refused."""
    return sum(
        trial.state.name in ("COMPLETE", "PRUNED") or "refused" in trial.user_attrs
        for trial in study.get_trials(deepcopy=False)
    )


def _try(space: Space, out: Path, trial_id: int, settings: dict[str, Any]) -> str:
    """Run one trial in this worker process: all seeds in turn, unless it is pruned.

    Returns:
        The outcome as text.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=_STUDY, storage=_storage(out), pruner=_pruner(space)
    )
    trial = optuna.trial.Trial(study, trial_id)
    folder = out / "trials" / f"{trial.number:04d}"
    finals: list[float] = []
    try:
        for seed in space.seeds:
            config = space.config(settings, seed)
            reporter = Reporter(trial, config, tuple(finals))
            value = _train(config, folder / f"s{seed}", reporter)
            if value is None:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return "was pruned"
            finals.append(value)
    except ValueError as error:
        # Settings that do not go together, such as K above the horizon.
        trial.set_user_attr("refused", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return f"was refused: {error}"
    study.tell(trial, float(np.mean(finals)))
    return f"returned {short(np.mean(finals))}"


class Reporter(Callback):
    """A callback that reports the evaluations of a trial to Optuna and prunes it.

    The reported value is the mean over the seeds started so far: the final returns of
    finished seeds and the current evaluation of the running one. The reported step
    counts evaluation intervals over all seeds, so that trials with updates of different
    length are compared at the same budget.

    Args:
        trial: The Optuna trial.
        config: Settings of the run.
        finals: Final returns of the finished seeds.
    """

    def __init__(
        self, trial: Any, config: TrainConfig, finals: tuple[float, ...]
    ) -> None:
        self._trial, self._config, self._finals = trial, config, finals
        self.pruned = False

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        value = float(np.mean([*self._finals, evaluation.returns.mean()]))
        interval = run.timesteps // self._config.eval_interval
        step = len(self._finals) * intervals_of(self._config) + interval
        self._trial.report(value, step)
        # At its end a run is not pruned: nothing would be saved.
        if run.timesteps < self._config.total_timesteps and self._trial.should_prune():
            self.pruned = True
            run.interrupt("pruning")


def intervals_of(config: TrainConfig) -> int:
    """Number of evaluations in a run, the one before training included."""
    return config.total_timesteps // config.eval_interval + 1


def _train(config: TrainConfig, folder: Path, reporter: Reporter) -> float | None:
    """The run's final return; None if it was pruned."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    config = dataclasses.replace(config, num_threads=1)
    with (folder / "output.txt").open("w") as file, contextlib.redirect_stdout(file):
        assembly = assemble_once(dataclasses.replace(config, seed=0))
        trainer = Trainer(config, folder, assembly=assembly, callbacks=[reporter])
        result = trainer.run()
        return None if reporter.pruned else final_return(trainer, result)


def _pruner(space: Space) -> Any:
    """Prunes below the median of complete trials, after a third of the first seed."""
    import optuna

    first = space.config(space.example(), space.seeds[0])
    warmup = -(-intervals_of(first) // 3)
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)


def _storage(out: Path) -> Any:
    """A journal file, which many processes can write and which survives kills."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(out / "journal.log")))


def _best(study: Any) -> str:
    try:
        return f"best {short(study.best_value)} (trial {study.best_trial.number})"
    except ValueError:
        return "none complete yet"
