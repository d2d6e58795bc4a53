"""The Ray cluster that workers run on: joined, or started on this machine."""

# Ray is an extra; where it is not installed, pyright takes this folder for it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import os
import socket
import time
import traceback
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import ray_constants

REACH_SECONDS = 10.0
"""Seconds within which the address of a cluster must answer."""

SILENT_SECONDS = 20.0
"""Seconds without the head, or without any living node, after which a run ends."""

_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""First frame of an HTTP/2 connection: an empty SETTINGS frame (type 4)."""


def connect(address: str | None, num_cpus: int) -> None:
    """Join the Ray cluster at an address, or start one on this machine.

    If this process has joined a cluster already, that one is used. The ports of a local
    one can be reached from this machine alone.

    Args:
        address: `auto` or `HOST:PORT`, as for `ray.init`; None starts a local Ray.
        num_cpus: Number of CPUs that a local Ray offers, whatever the machine has.

    Raises:
        ValueError: If no cluster answers at the address, or no local one starts.
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
            check_reachable(*_host_and_port(address), REACH_SECONDS)
        with _on_loopback() if address is None else contextlib.nullcontext():
            ray.init(**options)
    except Exception as error:
        # Ray raises many types, and a user can do the same about all of them.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address is None:
            raise ValueError(
                f"a local Ray does not start ({reason}); start one yourself with 'ray "
                "start --head' and set ray_address to auto, or drop workers"
            ) from None
        if "AuthenticationError" in "".join(traceback.format_exception(error)):
            raise ValueError(
                f"ray_address={address!r}: the cluster there wants a token; set "
                "RAY_AUTH_MODE=token on every machine, and give each the head's token "
                "('ray get-auth-token' there, ~/.ray/auth_token here)"
            ) from None
        raise ValueError(
            f"ray_address={address!r}: no Ray cluster answers there ({reason}); start "
            "one with 'ray start --head', or drop ray_address for a local one"
        ) from None


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started here listen on 127.0.0.1 alone.

    `ray.init` takes 127.0.0.1 for the machine's outer address, and Ray's servers then
    listen on every interface. On macOS and Windows, where Ray has no clusters of
    several machines, they listen on 127.0.0.1 alone; this is the setting for that. Ray
    reads it when it is imported, and its processes when they start.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    variable, enabled = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        if variable is None:
            del os.environ[name]
        else:
            os.environ[name] = variable


class ClusterMonitor:
    """Monitor of the cluster: whether its head answers and any of its nodes is alive.

    Ray terminates a process whose head has not answered for a minute; a run must save
    and end before. Where the head answers and no node is alive, Ray waits for ever.
    """

    def __init__(self) -> None:
        self.address: str = ray.get_runtime_context().gcs_address
        self._next = 0.0
        self._lost_since: float | None = None

    def failure(self) -> str | None:
        """Error message if the cluster has been lost for `SILENT_SECONDS`, or None."""
        now = time.monotonic()
        if now < self._next:
            return None
        problem = self._problem()
        if problem is None:
            self._next, self._lost_since = now + 5.0, None
            return None
        self._next = now + 1.0
        self._lost_since = self._lost_since or now
        if now - self._lost_since < SILENT_SECONDS:
            return None
        return f"{problem} for {SILENT_SECONDS:.0f} s"

    def _problem(self) -> str | None:
        try:
            check_reachable(*_host_and_port(self.address), 2.0)
        except OSError as error:
            return (
                f"the head of the Ray cluster, {self.address}, has not answered "
                f"({error})"
            )
        if not any(node["Alive"] for node in ray.nodes()):
            return f"no node of the Ray cluster {self.address} has been alive"
        return None


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host, port


def check_reachable(host: str, port: str, seconds: float) -> None:
    """Raise `OSError` unless HOST:PORT answers in HTTP/2, as Ray does.

    Ray itself would try for minutes.
    """
    if not host or not port.isdecimal():
        return
    with socket.create_connection((host, int(port)), seconds) as connection:
        if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
            return
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS)
        with connection.makefile("rb") as answer:
            if answer.read(len(_SETTINGS))[3:4] != _SETTINGS[3:4]:
                raise OSError("what listens there is not Ray")
