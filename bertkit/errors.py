"""What can go wrong, as one typed hierarchy.

Every message names the field, file or host, what was found there, what was expected and what to
do. The command line prints it on one line and exits with 2; the widgets show it at its field.
"""

from __future__ import annotations

from dataclasses import dataclass


class BertkitError(Exception):
    """Base of every error that bertkit raises on purpose."""


@dataclass(frozen=True)
class FieldProblem:
    """One wrong value of one configuration field.

    Args:
        field: Name of the field, such as ``"learning_rate"``.
        message: What was found, what was expected and what to do, in one sentence.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ConfigError(BertkitError):
    """One or more configuration fields hold a wrong value.

    Args:
        problems: Every problem found, so that a form can mark all its fields at once.
    """

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class DataError(BertkitError):
    """A question answering file cannot be used; the message names file, article and question."""


class ModelError(BertkitError):
    """A pretrained model cannot be found, read or used with this configuration."""


class RunError(BertkitError):
    """A run's folder cannot be used: it is missing, taken, or holds nothing to resume."""


class TrainingError(BertkitError):
    """A run failed while it trained, for instance on a loss that is not a number."""


class ClusterError(BertkitError):
    """Engines could not be started, reached or made ranks; the message names host or engine."""


class AdvisorError(BertkitError):
    """A search space, an experiment or its settings cannot be used."""
