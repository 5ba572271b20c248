"""One of the ranks that a transport is tried with; rank 0 prints how long a sum takes.

The program of `bertkit.cluster.doctor`: ``python -m bertkit.cluster.transport_test BYTES ROUNDS``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

MARK = "__transport__ "


def main() -> None:
    """Sum a float32 tensor over all ranks some times, and see that the sums are right."""
    size, rounds = int(sys.argv[1]), int(sys.argv[2])
    from bertkit.loading_tensorflow import load_tensorflow

    load_tensorflow(only_bertkit=True)
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.init()
    mine = tf.fill([size // 4], float(hvd.rank() + 1))
    expected = hvd.size() * (hvd.size() + 1) / 2
    seconds = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        found = hvd.allreduce(mine, op=hvd.Sum, name=f"transport_{number}")
        ends = float(found[0]), float(found[-1])
        seconds.append(time.perf_counter() - started)
        if ends != (expected, expected):
            sys.exit(f"a sum over {hvd.size()} ranks came to {ends}; expected {expected}")
    if hvd.rank() == 0:
        median = statistics.median(seconds[1:])  # the first one makes the connections
        sys.stdout.write(f"\n{MARK}{json.dumps({'ranks': hvd.size(), 'seconds': median})}\n")
        sys.stdout.flush()
    hvd.shutdown()


if __name__ == "__main__":
    main()
