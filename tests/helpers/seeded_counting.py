"""The counting environment of counting.py, begun from the seeds that Gymnasium gets.

A Gymnasium environment knows 31 bits of an episode's key. These two take tide and fuel
from the same bits, as `GymnasiumCounting` does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from counting import DeviceCounting, HostCounting


class SeededDeviceCounting(DeviceCounting):
    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        seed = jax.random.key_data(key)[1] & 0x7FFFFFFF
        return super().reset(jax.random.wrap_key_data(jnp.stack([seed >> 10, seed])))


class SeededHostCounting(HostCounting):
    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        seeds = keys[:, 1] & 0x7FFFFFFF
        return super().reset(ids, np.stack([seeds >> 10, seeds], axis=1))
