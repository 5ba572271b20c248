"""How many steps a run has and which learning rate each of them uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then linear decay towards zero.

    Step ``n`` (counted from 1) of ``total_steps`` uses ``peak * n / warmup_steps`` during the
    warm-up and ``peak * (total_steps - n + 1) / (total_steps - warmup_steps + 1)`` after it. No
    step is wasted at a rate of zero, at neither end.

    Args:
        peak: Largest learning rate.
        total_steps: Steps of the whole schedule.
        warmup_rate: Share of ``total_steps`` that warms up.

    Example:
        >>> schedule = Schedule(peak=1.0, total_steps=10, warmup_rate=0.2)
        >>> [round(schedule.learning_rate(n), 2) for n in (1, 2, 3, 10)]
        [0.5, 1.0, 0.89, 0.11]
    """

    peak: float
    total_steps: int
    warmup_rate: float

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up."""
        return round(self.total_steps * self.warmup_rate)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1; zero beyond the last."""
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        left = max(0, self.total_steps - step + 1)
        return self.peak * left / (self.total_steps - self.warmup_steps + 1)


def total_steps(steps_per_epoch: int, num_epochs: float) -> int:
    """Steps of ``num_epochs`` passes, at least one."""
    return max(1, round(steps_per_epoch * num_epochs))
