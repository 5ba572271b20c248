"""How long it takes to make features of 88,000 questions, and to find and score 10,570 answers.

Also how long it takes to make up the bundled sample, with which a first run begins. The real
questions of a folder are repeated, with paragraphs of their own, until there are so many.

    python -m benchmarks.inputs_and_scores --data squad --out inputs_and_scores.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.report import show
from bertkit.bert.pretrained import load_pretrained
from bertkit.squad.features import make_features
from bertkit.squad.reading import read_squad
from bertkit.squad.sample import make_sample
from bertkit.squad.scoring import score
from bertkit.squad.spans import best_answers
from bertkit.squad.tokenization import load_tokenizer
from tests.repeated import repeated

TRAIN, DEV = 88_000, 10_570
SETTINGS: dict[str, Any] = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}


def timed(work: Callable[[], Any], times: int) -> tuple[Any, dict[str, Any]]:
    """Do it some times; gives the last result and the wall seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        result = work()
        seconds.append(round(time.perf_counter() - began, 3))
    return result, {"seconds": seconds, "median_seconds": statistics.median(seconds)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all of it."""
    machine = describe_machine()
    pretrained = load_pretrained("minilm")
    tokenizer = load_tokenizer(pretrained.vocab_file, lowercase=pretrained.lowercase)
    train = repeated(read_squad(options.data / "train-v1.1.json", training=True), TRAIN)
    dev = repeated(read_squad(options.data / "dev-v1.1.json"), DEV)

    def features(data: Any, training: bool) -> Callable[[], Any]:
        return lambda: make_features(data, tokenizer, training=training, **SETTINGS)

    found, made = timed(features(train, True), options.times)
    dev_features, made_dev = timed(features(dev, False), options.times)
    (sample_train, sample_dev), sample = timed(make_sample, options.times)
    random = np.random.default_rng(0)
    starts, ends = (
        [random.normal(size=n).astype(np.float32) for n in dev_features.lengths] for _ in range(2)
    )
    answers, answered = timed(
        lambda: best_answers(
            dev_features, dev, starts, ends, max_answer_length=30, version_2=False
        ),
        options.times,
    )
    texts = {key: answer.text for key, answer in answers.items()}
    scores, scored = timed(lambda: score(dev, texts), options.times)
    return {
        "machine": machine,
        "sample": {"questions": _questions(sample_train) + _questions(sample_dev), **sample},
        "features_of_training_questions": {"questions": TRAIN, "features": len(found), **made},
        "features_of_dev_questions": {"questions": DEV, "features": len(dev_features), **made_dev},
        "answers_from_logits": {"questions": DEV, **answered},
        "scores_of_predictions": {"questions": scores.total, **scored},
    }


def _questions(data: dict[str, Any]) -> int:
    return sum(len(p["qas"]) for article in data["data"] for p in article["paragraphs"])


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of real questions")
    words.add_argument("--times", type=int, default=3)
    words.add_argument("--out", type=Path)
    options = words.parse_args()
    show(measure(options), options.out)


if __name__ == "__main__":
    main()
