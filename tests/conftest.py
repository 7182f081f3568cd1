"""What every test starts from."""

import signal

import pytest


@pytest.fixture(autouse=True)
def signals_of_a_terminal():
    """Whatever started the tests (a job in the background ignores Ctrl-C), and whatever a library did (gmsh)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
