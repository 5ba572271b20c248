"""What Intel published of its BERT demo, and what of it the simulator uses.

From intel/e2eAIOK (archived in July 2024): ``docs/source/sda_model_performance.md`` and the output
kept in ``demo/builtin/bert/BERT_DEMO.ipynb``. That output is of one process; how long a step took
on each of the four nodes, and what network joined them, was not published.
"""

from __future__ import annotations

NODES = 4
SPEED_UP = 3.42
EFFICIENCY = SPEED_UP / NODES
EXAMPLES_PER_RANK = 24  # --batch-size=24
GLOBAL_BATCH = NODES * EXAMPLES_PER_RANK
LENGTH = 384  # max_seq_length, every example padded to it
PROCESSOR = "Intel Xeon Platinum 8358"
STEP_SECONDS = 13.4  # global_step/sec 0.0747, examples/sec 1.79; BERT-large, float32, 36 threads
FASTEST_STEP_SECONDS = EXAMPLES_PER_RANK / 3.1  # examples/sec named for the advisor's settings
