"""A Ray worker: its handle in the pool, and the actor in its process."""

# Ray is an extra; where it is not installed, pyright takes this folder for it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import os
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError


class WorkerHandle:
    """Handle of a worker: the Ray actor, and whether it has started.

    Args:
        build: Makes the object that the worker holds; it is pickled.
        num_cpus: CPUs of the cluster that it occupies.

    Attributes:
        actor: Ray's handle.
        pid: Ray's reference to its process id, available once it has started.
        has_own_share: Whether its last call was for its own share of the particles, so
            that its object still holds their simulations.
    """

    def __init__(self, build: Callable[[], Any], num_cpus: int) -> None:
        # Ray would fill half of one machine's CPUs before it takes the next.
        options: Any = {"num_cpus": num_cpus, "scheduling_strategy": "SPREAD"}
        kind = ray.remote(_Worker).options(max_restarts=0, **options)
        self.actor: Any = kind.remote(build)
        self.pid: Any = self.actor.pid.remote()
        self.has_own_share = False
        self._failure: RayActorError | None = None
        self._known_pid: int | None = None

    def known_pid(self) -> int | None:
        """Process id of the worker; None before it has started."""
        unknown = self._known_pid is None and self._failure is None
        if unknown and ray.wait([self.pid], timeout=0)[0]:
            try:
                self._known_pid = ray.get(self.pid)
            except RayActorError as error:
                self._failure = error
        return self._known_pid

    def has_started(self) -> bool:
        """Whether the worker has started, now or earlier."""
        return self.known_pid() is not None

    def failure(self) -> RayActorError | None:
        """The error of a failed start; None if it started or still may."""
        self.known_pid()
        return self._failure


def cannot_start(error: RayActorError) -> str:
    """Error message for a worker that could not start or could not make its object."""
    reason = str(error).strip().splitlines()[-1].strip()
    message = f"a Ray worker cannot start: {reason}"
    if "No module named" in reason:
        message += "; every machine of the cluster needs what this one has installed"
    return message


class _Worker:
    """The actor in the process of a worker."""

    def __init__(self, build: Callable[[], Any]) -> None:
        import jax

        # Workers do not use the accelerators of the cluster.
        jax.config.update("jax_platforms", "cpu")
        self._object = build()

    def pid(self) -> int:
        return os.getpid()

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._object, name)(*arguments)
