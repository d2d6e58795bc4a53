"""What ends a run before its budget."""

from pes_rl.training.stopping import Ending


def test_a_request_counts_from_the_next_agreement_on():
    ending = Ending()
    assert not ending.agree(solved=False)
    ending.stop("good enough")
    assert ending.by is None
    assert ending.agree(solved=False)
    assert ending.by == "good enough"
    assert not ending.is_interruption


def test_an_interruption_goes_before_a_stop_and_a_stop_before_the_threshold():
    ending = Ending()
    assert ending.agree(solved=True)
    assert ending.by == "the threshold"
    ending.stop("good enough")
    ending.agree(solved=True)
    assert ending.by == "good enough"
    ending.interrupt("SIGTERM")
    ending.agree(solved=True)
    assert ending.by == "SIGTERM"
    assert ending.is_interruption
