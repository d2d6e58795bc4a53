"""What ends a run before its budget."""

import signal
from typing import Any, cast

from pes_rl.training.signals import stopping_on_signals
from pes_rl.training.stopping import StopRequests


def test_a_request_counts_from_the_next_agreement_on():
    requests = StopRequests()
    assert not requests.agree(solved=False)
    requests.stop("good enough")
    assert requests.reason is None
    assert requests.agree(solved=False)
    assert requests.reason == "good enough"
    assert not requests.is_interruption


def test_an_interruption_goes_before_a_stop_and_a_stop_before_the_threshold():
    requests = StopRequests()
    assert requests.agree(solved=True)
    assert requests.reason == "the threshold"
    requests.stop("good enough")
    requests.agree(solved=True)
    assert requests.reason == "good enough"
    requests.interrupt("SIGTERM")
    requests.agree(solved=True)
    assert requests.reason == "SIGTERM"
    assert requests.is_interruption


def test_windows_has_no_sighup(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_signals(cast(Any, None)):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
