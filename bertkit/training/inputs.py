"""What a run needs before its first step: questions, tokenizer, features and pretrained weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from bertkit.bert.pretrained import Pretrained, load_pretrained
from bertkit.config import Config
from bertkit.errors import ConfigError, FieldProblem
from bertkit.events import Emit, Event, Notice, Progress
from bertkit.squad.dataset import Dataset
from bertkit.squad.feature_cache import cached_features
from bertkit.squad.features import Features
from bertkit.squad.reading import load_data
from bertkit.squad.tokenization import load_tokenizer

PROBLEMS_SHOWN = 3


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads, checked.

    Args:
        train, dev: The questions.
        pretrained: Architecture and weights the run begins with.
        tokenizer: The model's WordPiece tokenizer.
    """

    train: Dataset
    dev: Dataset
    pretrained: Pretrained
    tokenizer: Tokenizer


def silent(_event: Event) -> None:
    """Take an event and show it to nobody."""


def read_inputs(config: Config, emit: Emit = silent) -> Inputs:
    """Read questions and model.

    Raises:
        ConfigError: If a field names something that is not there or does not fit the model.
        DataError: If a file of questions cannot be used.
        ModelError: If the model cannot be used.
    """
    emit(Progress(stage="Reading questions"))
    train, dev = load_data(config)
    for dataset in (train, dev):
        _report_problems(dataset, emit)
    emit(Progress(stage="Reading the model"))
    pretrained = load_pretrained(config.model, num_hidden_layers=config.num_hidden_layers)
    longest = pretrained.architecture.max_position_embeddings
    if config.max_seq_length > longest:
        message = f"is {config.max_seq_length}; {config.model} has positions for {longest} tokens"
        raise ConfigError([FieldProblem("max_seq_length", message)])
    tokenizer = load_tokenizer(pretrained.vocab_file, lowercase=pretrained.lowercase)
    return Inputs(train, dev, pretrained, tokenizer)


def features(
    dataset: Dataset,
    tokenizer: Tokenizer,
    config: Config,
    *,
    training: bool,
    emit: Emit = silent,
) -> Features:
    """Features of some questions, from the cache where the same were made before."""
    stage = "Preparing training features" if training else "Preparing validation features"
    return cached_features(
        dataset,
        tokenizer,
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        max_query_length=config.max_query_length,
        training=training,
        on_progress=lambda done, total: emit(Progress(stage=stage, done=done, total=total)),
    )


def validation_sample(dev: Dataset, fraction: float, seed: int) -> Dataset:
    """The fixed random share of the validation questions that decides about the early stop."""
    count = max(1, math.floor(len(dev) * fraction + 0.5))
    chosen = np.random.default_rng([seed, 1]).permutation(len(dev))[:count]
    return dev.subset(sorted(chosen.tolist()))


def _report_problems(dataset: Dataset, emit: Emit) -> None:
    problems = dataset.problems
    for problem in problems[:PROBLEMS_SHOWN]:
        emit(Notice(message=str(problem)))
    if len(problems) > PROBLEMS_SHOWN:
        more = len(problems) - PROBLEMS_SHOWN
        emit(Notice(message=f"{dataset.name}: {more} more such problems, {len(problems)} in all"))
