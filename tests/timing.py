"""How many times as long one piece of work takes as another, which a slow machine leaves alone."""

import time


def times_as_long(work, other, clock=time.thread_time, rounds=3):
    """Do both in turn, and divide the least of each.

    One machine takes 1.4 s in one minute and 2.5 s in the next for the same work. By default the
    time of this thread is measured, since other tests may have left threads at work.
    """

    def seconds(work):
        begin = clock()
        work()
        return clock() - begin

    worked, others = zip(*((seconds(work), seconds(other)) for _ in range(rounds)), strict=True)
    return min(worked) / min(others)
