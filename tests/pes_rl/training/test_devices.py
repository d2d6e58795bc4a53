"""`--devices`: the command on eight simulated devices, in a process of its own."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from pes_rl.config.train_config import make_config
from pes_rl.run_folder.policy_files import (
    load_parameters,
)
from pes_rl.training import command as train

COMMON = (
    "--env unrolled:toy-regression --num-pairs 8 --truncation-length 10 "
    "--eval-episodes 2 --final-eval-episodes 2 --log-interval 4 "
    "--checkpoint-interval 640"
)
RUN_ALL = (
    "import shlex, sys; from pes_rl.training.command import main; "
    "print([main(shlex.split(line)) for line in sys.argv[1:]])"
)


def test_eight_devices_and_a_resume_on_two_end_as_one_device_does(tmp_path):
    one, eight, moved = (tmp_path / name for name in ("one", "eight", "moved"))
    assert train.main(f"{COMMON} --total-timesteps 2560 --logdir {one}".split()) == 0
    commands = [
        f"{COMMON} --devices 8 --total-timesteps 2560 --logdir {eight}",
        f"{COMMON} --devices 8 --total-timesteps 1280 --logdir {moved}",
        f"--resume {moved} --devices 2 --total-timesteps 2560",
        f"{COMMON} --devices 0 --num-pairs 12 --logdir {tmp_path / 'uneven'}",
        f"{COMMON} --devices 2 --pairs-per-chunk 4 --logdir {tmp_path / 'chunks'}",
    ]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 2, 2]"
    assert "num_pairs=12 cannot be cut into equal shares for 8 devices" in done.stderr
    assert "pairs_per_chunk=4 is for a single device; drop it" in done.stderr
    assert "Traceback" not in done.stderr
    expected = load_parameters(one, "last").theta
    for folder in (eight, moved):
        theta = load_parameters(folder, "last").theta
        np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-6)
    # A checkpoint of eight devices goes on with one as well.
    again = shlex.split(f"--resume {eight}/checkpoints/1280 --devices 1")
    assert train.main(again) == 0
    theta = load_parameters(eight, "last").theta
    np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("env", ["swimmer", "gym:Swimmer-v5"])
def test_environments_on_the_host_have_no_devices(env):
    with pytest.raises(ValueError, match=r"devices=2 .*num_threads.*workers"):
        make_config(env, "pes", devices=2)


def test_a_negative_number_of_devices_is_none():
    with pytest.raises(ValueError, match=r"devices=-1 must be 0 \(all\) or more"):
        make_config("jax:swimmer", "pes", devices=-1)
