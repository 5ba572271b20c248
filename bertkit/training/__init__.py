"""Training: optimizers, the step, the loop, validation and early stop, checkpoints."""
