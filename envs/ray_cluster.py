"""The Ray cluster that workers run on: joined, or started on this machine."""

# Ray is an extra.
# pyright: reportMissingImports=false

import socket
from typing import Any

import ray

KNOCK_SECONDS = 10.0
"""How long an address of a cluster may take to answer at all."""


def connect(address: str | None, num_cpus: int) -> None:
    """Join the Ray cluster at an address, or start one on this machine.

    A cluster that this process has joined already is the one that is used.

    Args:
        address: As of `ray.init`, `auto` or `HOST:PORT`; None starts a local Ray.
        num_cpus: CPUs that a local Ray counts; it does not look how many there are.

    Raises:
        ValueError: If there is no cluster at the address, or none starts here.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": num_cpus,
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,
        }
    try:
        if address is not None:
            _knock(address)
        ray.init(**options)
    except Exception as error:
        # Ray raises many kinds; a user can do the same about all of them.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address is None:
            raise ValueError(
                f"a local Ray does not start ({reason}); start one yourself with 'ray "
                "start --head' and set ray_address to auto, or drop workers"
            ) from None
        raise ValueError(
            f"ray_address={address!r}: no Ray cluster answers there ({reason}); start "
            "one with 'ray start --head', or drop ray_address for a local one"
        ) from None


def _knock(address: str) -> None:
    """Raise `OSError` if nobody listens at HOST:PORT: Ray asks for minutes, in vain."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
