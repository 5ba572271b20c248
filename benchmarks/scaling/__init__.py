"""Step time past these machines: a model of training on many ranks, checked on a shaped network.

    python -m benchmarks.scaling --out benchmarks/results/scaling.json           # everything
    python -m benchmarks.scaling simulate --out benchmarks/results/scaling.json  # in seconds

Measuring takes half an hour, root and iproute2: each rank is a process in a network namespace of
its own, `tc`'s token bucket holds its link to a rate and a relay adds delay (`network`). Measured
are sums over two and four ranks of the gradients that the 22M model, BERT-base and BERT-large
really send (`gradients`), whole steps of the 22M model on two ranks with a core each, and steps of
BERT-large on one. The costs that the processor adds to a sum are fitted on some of the sums, the
others are predicted (`fitting`). `simulate` works from what the file holds, goes on to a thousand
ranks, and draws the picture beside it.

What the model holds, and what it leaves out:

- One sum a step, however many passes are accumulated (`step_time`). It goes on beside the last
  pass's backward for as much of it as was measured on two ranks with a core each, whose sums take
  the core that backward needs; ranks with more cores than one are taken to hide no more.
- Gloo's ring with its segments and hand-shakes, one fused buffer after another, and Horovod's
  agreement before it (`collectives`). Two levels of rings are modelled and were not measured:
  Horovod offers them over MPI and NCCL, not over Gloo.
- Every rank computes for the same time: bertkit deals equal shapes to all ranks. Slow machines,
  other users of the network, evaluation and checkpoints are left out.
- A rank's sum costs the processor what it costs here. Where more ranks than cores were measured,
  they took turns.
"""
