"""Addresses at which there is no Ray cluster to join."""

# Ray is an extra.
# pyright: reportMissingImports=false

import socket
import threading
import time
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ray.exceptions import AuthenticationError  # noqa: E402

from pes_rl.envs.ray import cluster as ray_cluster  # noqa: E402
from pes_rl.envs.ray.cluster import connect  # noqa: E402


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:1", "Connection refused"), ("nowhere", "Invalid address format")],
)
def test_an_address_without_a_cluster_is_one_clear_error(address, reason, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    message = f"ray_address='{address}': no Ray cluster answers there .*{reason}.*start"
    with pytest.raises(ValueError, match=message):
        connect(address, num_cpus=1)


@pytest.mark.parametrize(
    ("answer", "reason"), [(b"", "timed out"), (b"-ERR unknown", "is not Ray")]
)
def test_an_address_of_something_else_is_one_clear_error(answer, reason, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_cluster, "REACH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(100)
                time.sleep(1.0)

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"no Ray cluster .*{reason}"):
            connect(address, num_cpus=1)


def test_a_cluster_that_wants_a_token_says_so(monkeypatch):
    def init(**options: Any) -> None:
        raise ConnectionError("Failed to connect") from AuthenticationError("no token")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match=r"wants a token; set RAY_AUTH_MODE=token"):
        connect("auto", num_cpus=1)


def test_a_local_ray_that_does_not_start_is_one_clear_error(monkeypatch):
    def init(**options: Any) -> None:
        raise TimeoutError("the raylet has not registered for 60 s\nand more")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        ValueError, match=r"not start \(the raylet .* 60 s\); start one"
    ):
        connect(None, num_cpus=1)
