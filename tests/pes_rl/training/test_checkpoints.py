"""Checkpoints that cannot be resumed from: each says why, and what to do instead."""

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.assembly.assemble import assemble
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.run_folder.reader import read_config
from pes_rl.training import command as train
from pes_rl.training.checkpoints import FORMAT, Checkpoints
from pes_rl.training.checksums import check_counters, checksums_of, describe_counters
from pes_rl.training.counters import Counters

OPTIONS = (
    "--env swimmer --agent pes --num-pairs 2 --truncation-length 10 --horizon 40 "
    "--eval-episodes 1 --final-eval-episodes 1 --log-interval 1 "
    "--total-timesteps 240 --checkpoint-interval 80"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that has ended, with checkpoints at 80, 160 and 240 steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train.main([*OPTIONS.split(), "--logdir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def refusal(run, capsys, *more):
    """The error of a resumption, in one line."""
    capsys.readouterr()
    assert train.main(["--resume", str(run), *more]) == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    return line


def tear(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file() and file.name != "commit_success.txt":
            file.write_bytes(b"torn")


def set_counters(checkpoint, change):
    file = checkpoint / "counters" / "metadata"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def steps(run):
    lines = (run / "progress.csv").read_text().splitlines()[1:]
    return [int(line.split(",")[0]) for line in lines]


def test_from_a_torn_checkpoint_the_one_before_it_is_offered(run, whole, capsys):
    tear(run / "checkpoints" / "240")
    shown = refusal(run, capsys)
    assert f"checkpoint 240 in {run / 'checkpoints'} cannot be read" in shown
    offered = re.search(r"the one before it: --resume (.*)$", shown)
    assert offered is not None
    assert offered[1] == str(run / "checkpoints" / "160")
    assert train.main(["--resume", offered[1]]) == 0
    assert steps(run) == steps(whole)
    thetas = [load_policy(folder, "last").theta.tolist() for folder in (run, whole)]
    assert thetas[0] == thetas[1]
    # The torn one has been written again.
    assert train.main(["--resume", str(run)]) == 0


def test_a_first_checkpoint_that_is_torn_leaves_nothing_to_offer(run, capsys):
    for name in ("80", "160"):
        shutil.rmtree(run / "checkpoints" / name)
    tear(run / "checkpoints" / "240")
    assert "none before it, so start the run anew" in refusal(run, capsys)


def test_a_checkpoint_of_a_later_format_asks_for_a_newer_version(run, capsys):
    later = {"format": FORMAT + 1, "unknown": 0}
    set_counters(run / "checkpoints" / "240", lambda counters: counters | later)
    shown = refusal(run, capsys)
    assert f"format {FORMAT + 1}, from a newer pes_rl" in shown
    assert shown.endswith(f"--resume {run / 'checkpoints' / '160'}")


def test_counters_of_something_else_are_refused(run, capsys):
    set_counters(run / "checkpoints" / "240", lambda _: {"epoch": 3})
    assert "its counters are not those of a run" in refusal(run, capsys)


def test_a_checkpoint_of_other_settings_says_where_it_differs(run, capsys):
    shown = refusal(run, capsys, "--num-pairs", "3")
    assert "it is of other settings or another task" in shown
    assert "estimator.accumulator is float32[4, 16], and the run has" in shown
    assert "float32[6, 16]" in shown
    shown = refusal(run, capsys, "--normalize-observations")
    assert "(observations.count is not in it, and the run has" in shown


def without(state, field):
    """The state as a pes_rl had it that knew no such field."""
    names = [each.name for each in dataclasses.fields(state) if each.name != field]
    parts = {name: getattr(state, name) for name in names}
    older: Any = make_dataclass("Older", parts)(**parts)
    jax.tree_util.register_dataclass(type(older), names, [])
    return older


@pytest.mark.parametrize("field", ["observations", "past", "critic"])
def test_a_checkpoint_from_before_a_field_of_the_state_is_read(run, field):
    """All are None in this run."""
    theta = jnp.asarray(load_policy(run, "last").theta)
    settings = read_config(run)
    like = assemble(settings).learner.init(theta, jax.random.key(0))
    checkpoints = Checkpoints(run / "checkpoints")
    state, counters = checkpoints.restore(240, like)
    if field == "observations":
        older = without(state, field)
    else:
        estimator = without(state.estimator, field)
        older = dataclasses.replace(state, estimator=estimator)
    checkpoints.save(older, dataclasses.replace(counters, timesteps=250))
    found, _ = checkpoints.restore(250, like)
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, state)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# A state of a user's own: a dataclass whose parts have no names for JAX.
Pair = dataclasses.make_dataclass("Pair", ["left", "right"])
jax.tree_util.register_pytree_node(
    Pair, lambda pair: ((pair.left, pair.right), None), lambda _, parts: Pair(*parts)
)


def test_states_of_users_that_are_dataclasses_are_read(run):
    """Also from before a field of the estimator's state."""
    plain = like = assemble_like(run)
    own = Pair(jnp.arange(3.0), jnp.ones((4, 2)))
    estimator = like.estimator
    particles = dataclasses.replace(estimator.particles, state=own)
    estimator = dataclasses.replace(estimator, particles=particles)
    like = dataclasses.replace(like, estimator=estimator)
    older = dataclasses.replace(like, estimator=without(estimator, "critic"))
    checkpoints = Checkpoints(run / "checkpoints")
    _, counters = checkpoints.restore(240, plain)
    for steps, state in ((250, like), (260, older)):
        checkpoints.save(state, dataclasses.replace(counters, timesteps=steps))
        found, _ = checkpoints.restore(steps, like)
        assert jax.tree.structure(found) == jax.tree.structure(like)
        for ours, theirs in zip(*map(jax.tree.leaves, (found, like)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    checkpoints.close()


def assemble_like(run):
    """A state as the run's checkpoints hold it."""
    theta = jnp.asarray(load_policy(run, "last").theta)
    return assemble(read_config(run)).learner.init(theta, jax.random.key(0))


def test_a_checkpoint_that_is_not_there_is_named(run, capsys):
    shown = refusal(run / "checkpoints" / "120", capsys)
    assert "holds no checkpoint 120, only [80, 160, 240]" in shown


def test_a_run_whose_checkpoints_are_gone_is_not_begun_again(run, capsys):
    shutil.rmtree(run / "checkpoints")
    assert "are gone, so it cannot be resumed" in refusal(run, capsys)
    assert steps(run)[-1] == 240


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(run, whole):
    shutil.rmtree(run / "checkpoints")
    (run / "policy" / "last.npz").unlink()
    assert train.main(["--resume", str(run)]) == 0
    assert steps(run) == steps(whole)


def test_a_log_that_was_cut_mid_line_goes_on_whole(run, whole):
    """Rows after the checkpoint are dropped, and what is left of the last one."""
    shutil.rmtree(run / "checkpoints" / "240")
    log = run / "progress.csv"
    log.write_bytes(log.read_bytes()[:-7])
    assert train.main(["--resume", str(run)]) == 0
    assert steps(run) == steps(whole) == [0, 40, 80, 120, 160, 200, 240]
    columns = {line.count(",") for line in log.read_text().splitlines()}
    assert len(columns) == 1


COUNTERS = [
    ("iterations", -3, "a whole number of at least 0"),
    ("iterations", "six", "a whole number of at least 0"),
    ("iterations", 2.5, "a whole number of at least 0"),
    ("iterations", True, "a whole number of at least 0"),
    ("evaluations", None, "a whole number of at least 0"),
    ("next_checkpoint", [3], "a whole number of at least 0"),
    ("timesteps_to_threshold", -1, "a whole number of at least 0"),
    ("best_return", math.nan, "a finite number"),
    ("last_return", -math.inf, "a finite number"),
    ("last_return", "high", "a finite number"),
    ("wall_seconds", -0.5, "a finite number of at least 0"),
    ("training_seconds", math.inf, "a finite number of at least 0"),
]


@pytest.mark.parametrize(("name", "value", "expected"), COUNTERS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_counter_that_is_none_is_named(name, value, expected, version):
    written = describe_counters(Counters(), 2, {})
    with pytest.raises(
        ValueError, match=f"its counter {name} is .* must be {expected}"
    ):
        check_counters(of_version(version, written | {name: value}), 2)


def of_version(version, written):
    """As a pes_rl of that time wrote it: version 1 had no checksums."""
    if version > 1:
        return written
    later = ("checksum", "array_checksums")
    return {k: v for k, v in written.items() if k not in later} | {"format": version}


@pytest.mark.parametrize("read", [3, [], None, "text", {}, {"format": "new"}])
def test_counters_that_are_no_counters(read):
    with pytest.raises(ValueError, match=r"^its (counters|format) "):
        check_counters(read, 2)


def test_counters_of_every_version_are_read():
    counters = Counters(timesteps=80, best_return=-3.5, wall_seconds=1.25)
    written = describe_counters(counters, 2, {"theta": 7})
    assert check_counters(json.loads(json.dumps(written)), 2) == (
        counters,
        {"theta": 7},
    )
    assert check_counters(of_version(1, written), 2) == (counters, {})
    oldest = {"timesteps": 80, "best_return": -3.5, "wall_seconds": 1.25}
    assert check_counters(oldest, 2) == (counters, {})


def offers_the_one_before(shown, run):
    return shown.endswith(f"--resume {run / 'checkpoints' / '160'}")


def test_a_bad_counter_ends_in_one_line_that_offers_the_one_before(run, capsys):
    set_counters(run / "checkpoints" / "240", lambda old: old | {"iterations": -1})
    shown = refusal(run, capsys)
    assert (
        f"checkpoint 240 in {run / 'checkpoints'} cannot be read: its counter" in shown
    )
    assert (
        "its counter iterations is -1 and must be a whole number of at least 0" in shown
    )
    assert offers_the_one_before(shown, run)


@pytest.mark.parametrize("change", [{"iterations": 7}, {"checksum": None}])
def test_counters_that_changed_are_found_by_their_checksum(run, capsys, change):
    set_counters(run / "checkpoints" / "240", lambda old: old | change)
    shown = refusal(run, capsys)
    assert "its counters have another checksum than when it was saved" in shown
    assert offers_the_one_before(shown, run)


def test_a_checkpoint_under_another_name_is_refused(run, capsys):
    checkpoints = run / "checkpoints"
    shutil.rmtree(checkpoints / "240")
    shutil.copytree(checkpoints / "80", checkpoints / "240")
    shown = refusal(run, capsys)
    assert "its timesteps are 80, and it is named 240" in shown


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_theta_that_changed_or_is_not_finite_is_refused(run, capsys, value):
    """Without its checksum, as in checkpoints of before, if it is finite."""
    like = assemble(read_config(run)).learner.init(
        jnp.asarray(load_policy(run, "last").theta), jax.random.key(0)
    )
    checkpoints = Checkpoints(run / "checkpoints")
    state, counters = checkpoints.restore(240, like)
    shutil.rmtree(run / "checkpoints" / "240")
    checkpoints.close()
    checkpoints = Checkpoints(run / "checkpoints")
    changed = dataclasses.replace(state, theta=state.theta.at[0].set(value))
    checkpoints.save(changed, counters)
    checkpoints.close()
    expected = "its theta holds NaN or infinity and must be finite"
    if value == 1.0:
        expected = "its theta has another checksum than when it was saved"
        arrays = checksums_of(state)
        described = describe_counters(counters, FORMAT, arrays)
        set_counters(run / "checkpoints" / "240", lambda _: described)
    shown = refusal(run, capsys)
    assert expected in shown
    assert offers_the_one_before(shown, run)


def test_a_flipped_bit_in_any_file_changes_nothing_or_is_refused(run):
    script = Path(__file__).parents[2] / "helpers" / "flipped_bits.py"
    done = subprocess.run(
        [sys.executable, str(script), str(run)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "files refused" in done.stdout
