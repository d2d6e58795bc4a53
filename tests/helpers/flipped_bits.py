"""Flips a bit in each file of a checkpoint in turn: it is refused, or nothing changes.

In a process of its own, because Orbax leaves the other tasks of a read that failed to
the garbage collector, whose warnings would be those of whatever test comes next.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from pes_rl.assembly.assemble import assemble
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.run_folder.reader import read_config
from pes_rl.training.checkpoints import Checkpoints


def flip_bits(run: Path) -> int:
    """Check all files of the checkpoint at 240 steps; returns how many are refused."""
    theta = jnp.asarray(load_policy(run, "last").theta)
    like = assemble(read_config(run)).learner.init(theta, jax.random.key(0))
    refused = 0
    checkpoint = run / "checkpoints" / "240"
    for file in sorted(checkpoint.rglob("*")):
        content = file.read_bytes() if file.is_file() else b""
        if not content:
            continue
        at = len(content) // 2
        file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        checkpoints = Checkpoints(run / "checkpoints")
        try:
            state, counters = checkpoints.restore(240, like)
        except ValueError as error:
            refused += 1
            assert str(error).endswith(f"--resume {run / 'checkpoints' / '160'}")
        else:
            assert counters.timesteps == 240
            assert state.theta.tolist() == theta.tolist()
        checkpoints.close()
        file.write_bytes(content)
    assert refused >= 3
    return refused


if __name__ == "__main__":
    print(f"{flip_bits(Path(sys.argv[1]))} files refused")
