"""`python -m pes_rl.analyze signal`: runs and policy files, files, errors, Ctrl-C."""

import csv

import numpy as np
import pytest

from pes_rl import analyze
from pes_rl.agents import Policy
from pes_rl.analysis import signal_to_noise
from pes_rl.analysis.trained_subject import load_subject
from pes_rl.run_folder.policy_files import save_policy
from pes_rl.run_folder.trained_policy import make_trained
from pes_rl.training import command as train


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    options = (
        "--env inverted_pendulum --agent pes --total-timesteps 2000 --horizon 60 "
        "--num-pairs 4 --truncation-length 20 --eval-episodes 2 "
        "--final-eval-episodes 2 --final-sigma 0.2 --observation-mask 0"
    )
    assert train.main([*options.split(), "--logdir", str(folder)]) == 0
    return folder


def test_the_command_measures_a_run(run, capsys):
    options = "--steps 500 --num-chains 4 --truncation-length 20 60 --sigma 3"
    assert analyze.main(["signal", "--run", str(run), *options.split()]) == 0
    rows = read_rows(run / "signal" / "signal.csv")
    agents = [row["agent"] for row in rows]
    assert agents == ["es", *["nres"] * 2, *["pes"] * 20, *["truncated-es"] * 2]
    decays = [row["trace_decay"] for row in rows if row["agent"] == "pes"]
    assert decays == ["0", "0.5", "0.8", "0.9", "1"] * 4
    discounts = [row["critic_discount"] for row in rows if row["agent"] == "pes"]
    assert discounts == [*[""] * 5, *["0.995"] * 5] * 2
    for row in rows:
        assert float(row["noise"]) > 0
        assert float(row["signal_low"]) <= float(row["signal_high"])
    sentence = (run / "signal" / "signal.txt").read_text()
    assert sentence.startswith("inverted_pendulum, 4 pairs, sigma 3")
    shown = capsys.readouterr().out
    assert sentence.splitlines()[1] in shown
    lines = [x for x in shown.splitlines() if "pes K 20 lambda 1 " in x]
    (own,) = [x for x in lines if "critic" not in x]
    assert "run" in own
    assert (run / "signal" / "signal.png").read_bytes().startswith(b"\x89PNG")


def test_critics_are_the_run_s_or_those_that_are_asked_for(run, tmp_path, capsys):
    folder = tmp_path / "run"
    options = (
        "--env inverted_pendulum --agent pes --total-timesteps 1000 --horizon 60 "
        "--num-pairs 4 --truncation-length 20 --eval-episodes 2 "
        "--final-eval-episodes 2 --critic-discount 0.9 --trace-decay 0.5"
    )
    assert train.main([*options.split(), "--logdir", str(folder)]) == 0
    short = "--steps 500 --num-chains 4 --truncation-length 20 --agent pes"
    assert analyze.main(["signal", "--run", str(folder), *short.split()]) == 0
    rows = read_rows(folder / "signal" / "signal.csv")
    assert {row["critic_discount"] for row in rows} == {"", "0.9"}
    shown = capsys.readouterr().out.splitlines()
    (own,) = [x for x in shown if "pes K 20 lambda 0.5 critic 0.9 " in x]
    assert "run" in own
    asked = ["--critic-discount", "0.5", "1", "--logdir", str(tmp_path)]
    assert analyze.main(["signal", "--run", str(run), *short.split(), *asked]) == 0
    rows = read_rows(tmp_path / "signal.csv")
    found = list(dict.fromkeys(row["critic_discount"] for row in rows))
    assert found == ["", "0.5", "1"]
    problem = tmp_path / "problem"
    options = "--env unrolled:toy-regression --agent pes --total-timesteps 800"
    assert train.main([*options.split(), "--logdir", str(problem)]) == 0
    capsys.readouterr()
    assert (
        analyze.main(["signal", "--run", str(problem), "--critic-discount", "1"]) == 2
    )
    assert "critic_discount needs observations" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_measured(run, tmp_path, monkeypatch, capsys):
    whole = signal_to_noise.measure

    def interrupted(rollout, theta, stream, *arguments):
        yield from whole(rollout, theta, stream, *arguments)
        if stream.settings[0].agent == "nres":
            raise KeyboardInterrupt

    monkeypatch.setattr(signal_to_noise, "measure", interrupted)
    options = "--steps 200 --num-chains 4 --truncation-length 20 --logdir"
    command = ["signal", "--run", str(run), *options.split(), str(tmp_path)]
    assert analyze.main(command) == 130
    rows = read_rows(tmp_path / "signal.csv")
    assert [row["agent"] for row in rows] == ["es", "nres"]
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("stopped; written so far: ")
    assert str(tmp_path / "signal.csv") in line


def test_a_masked_policy_has_theta_and_sigma_of_its_training(run):
    subject = load_subject(str(run), "last", None)
    assert subject.sigma() == pytest.approx(0.2)  # the run's last one
    assert subject.theta.size == 3  # of four entries three are seen
    assert (np.asarray(subject.theta) != 0).all()


def test_a_policy_file_in_no_run_names_its_environment_or_needs_it(tmp_path, capsys):
    policy = Policy(4, (-3.0,), (3.0,), bias=False)
    trained = make_trained(policy, np.ones(4, np.float32), np.zeros(4), np.ones(4))
    save_policy(tmp_path / "mine.npz", trained)
    command = ["signal", "--run", str(tmp_path / "mine.npz")]
    assert analyze.main(command) == 2
    assert "name it by --env" in capsys.readouterr().err
    save_policy(tmp_path / "named.npz", trained, {"env": "inverted_pendulum"})
    assert load_subject(str(tmp_path / "named.npz"), "last", None).folder is None
    subject = load_subject(command[-1], "last", "inverted_pendulum")
    assert subject.folder is None
    np.testing.assert_array_equal(subject.theta, np.ones(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent", "uoro"], "unknown estimator here 'uoro'"),
        (["--trace-decay", "2"], "trace_decay=2.0 must be between 0 and 1"),
        (["--critic-discount", "0"], "critic_discount=0.0 must be above 0"),
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--num-chains", "2"], "num_chains=2 must be at least 4"),
        (["--truncation-length", "61"], "longer than the horizon of 60"),
        (
            ["--agent", "truncated-es"],
            "no estimator that is measured gives the gradient",
        ),
        (["--env", "swimmer"], "is for a policy file in no run"),
    ],
)
def test_bad_input_ends_in_one_line(run, options, message, capsys):
    assert analyze.main(["signal", "--run", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
