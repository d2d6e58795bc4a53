"""Time limits of environments, asked for without starting JAX in this process."""

import multiprocessing
from functools import lru_cache

from pes_rl.config.adaptive import ask_time_limit
from pes_rl.studies.worker_pool import worker_pool


@lru_cache
def ask_in_own_process(env: str, env_kwargs: str) -> int | None:
    """`ask_time_limit` in a process of its own, unless this is a worker process.

    JAX, once started in the process of the command, would take most of a GPU's memory,
    which its workers need.
    """
    if multiprocessing.parent_process() is not None:
        return ask_time_limit(env, env_kwargs)
    with worker_pool(1) as pool:
        return pool.submit(ask_time_limit, env, env_kwargs).result()
