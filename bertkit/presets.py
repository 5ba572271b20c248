"""Configurations worth starting from, by name."""

from __future__ import annotations

from bertkit.config import Config, Scalar
from bertkit.errors import ConfigError, FieldProblem

PRESETS: dict[str, dict[str, Scalar]] = {
    # The embedded default: bundled sample, packaged model, a few minutes on two cores.
    "demo": {
        "data": "sample",
        "model": "minilm",
        "optimizer": "lamb",
        "learning_rate": 2e-3,
        "batch_size": 16,
        "num_epochs": 4.0,
        "evaluate_every": 50,
        "evaluate_fraction": 1.0,  # few questions: a tenth would say little
        "checkpoint_every": 200,
    },
    # Hugging Face's fine-tuning settings for SQuAD 1.1.
    "SQuAD base": {
        "data": "squad",
        "model": "bert-base-uncased",
        "optimizer": "adamw",
        "learning_rate": 3e-5,
        "batch_size": 12,
        "num_epochs": 2.0,
        "evaluate_every": 500,
    },
    "SQuAD large": {
        "data": "squad",
        "model": "bert-large-uncased-whole-word-masking",
        "optimizer": "adamw",
        "learning_rate": 3e-5,
        "batch_size": 24,
        "num_epochs": 2.0,
        "evaluate_every": 250,
    },
    # What Intel's demo ran before the advisor: BERT-large, LAMB, early stop at F1 90.874.
    "published": {
        "data": "squad",
        "model": "bert-large-uncased-whole-word-masking",
        "optimizer": "lamb",
        "learning_rate": 3e-4,
        "warmup_rate": 0.1,
        "batch_size": 96,
        "num_epochs": 2.0,
        "target_f1": 90.874,
        "evaluate_every": 50,
    },
}


def preset(name: str) -> Config:
    """The configuration of that name.

    Raises:
        ConfigError: If there is none.

    Example:
        >>> preset("demo").data
        'sample'
    """
    if name not in PRESETS:
        message = f"is {name!r}; expected one of {', '.join(PRESETS)}"
        raise ConfigError([FieldProblem("preset", message)])
    return Config(**PRESETS[name])  # type: ignore[arg-type]
