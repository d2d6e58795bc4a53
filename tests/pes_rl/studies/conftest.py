import multiprocessing
import time

import pytest


@pytest.fixture
def other_process():
    """A child process of the test's that is not a study's."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=time.sleep, args=(600,))
    process.start()
    yield process
    process.kill()
    process.join()
