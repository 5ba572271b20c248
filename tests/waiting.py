"""Waiting with an end, for tests of what happens in other threads."""

import time


def until(condition, seconds=240.0):
    """Wait until the condition holds; fail loudly where it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.02)
