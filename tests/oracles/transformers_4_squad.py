"""Runs the SQuAD code of `transformers` 4 on a file, in a process of its own.

`transformers` 5 has no SQuAD features, spans and scores any more. Version 4 cannot stand beside it,
so it lives in a folder of its own that only this process sees: the one that
``BERTKIT_TRANSFORMERS_4`` names, or ``.oracles/transformers-4`` in the checkout, made by::

    pip install --target .oracles/transformers-4 "transformers<5"

The job names a data file, a vocabulary, the settings, and (for answers) the logits of each feature,
or (for scores) predictions; what `transformers` makes of them is written beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path


def run_transformers_4(job: dict, folder: Path) -> dict:
    """Hand a job to a process that sees `transformers` 4; skip the test where there is none."""
    import pytest

    here = Path(__file__).resolve()
    named = os.environ.get("BERTKIT_TRANSFORMERS_4")
    packages = Path(named) if named else here.parents[2] / ".oracles" / "transformers-4"
    if not (packages / "transformers").is_dir():
        pytest.skip(f"no transformers 4 in {packages}; see {here.name}")
    out, job_file = folder / "out.json", folder / "job.json"
    job_file.write_text(json.dumps({**job, "out": str(out)}))
    offline = {"USE_TF": "0", "USE_TORCH": "0", "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, str(here), str(job_file)],
        env={**os.environ, "PYTHONPATH": str(packages), **offline},
        check=True,
        timeout=500,
        capture_output=True,
    )
    return json.loads(out.read_text())


def main(job_file: Path) -> None:
    from transformers import BertTokenizer
    from transformers.data.processors import squad

    job = json.loads(job_file.read_text())
    file = Path(job["file"])
    processor = squad.SquadV2Processor() if job["version_2"] else squad.SquadV1Processor()
    get = processor.get_train_examples if job["training"] else processor.get_dev_examples
    examples = get(str(file.parent), file.name)
    if "predictions" in job:
        Path(job["out"]).write_text(json.dumps(score(job, examples)))
        return
    settings = job["settings"]
    tokenizer = BertTokenizer(job["vocab_file"])
    tokenizer.tokenize = lru_cache(maxsize=None)(tokenizer.tokenize)  # words come back often
    squad.squad_convert_example_to_features_init(tokenizer)
    features = []
    for number, example in enumerate(examples):
        for feature in squad.squad_convert_example_to_features(
            example, settings["max_seq_length"], settings["doc_stride"],
            settings["max_query_length"], "do_not_pad", job["training"],
        ):  # fmt: skip
            feature.example_index, feature.unique_id = number, len(features)
            features.append(feature)
    out = {"features": [describe(feature) for feature in features]}
    if "start_logits" in job:
        out |= answer(job, examples, features, tokenizer, job_file.parent)
    Path(job["out"]).write_text(json.dumps(out))


def describe(feature) -> dict:
    return {
        "question": feature.example_index,
        "input_ids": feature.input_ids,
        "segments": feature.token_type_ids,
        "start": feature.start_position,
        "end": feature.end_position,
        "max_context": [at for at, best in feature.token_is_max_context.items() if best],
    }


def answer(job, examples, features, tokenizer, folder: Path) -> dict:
    from transformers.data.metrics.squad_metrics import compute_predictions_logits
    from transformers.data.processors.squad import SquadResult

    results = [
        SquadResult(number, starts, ends)
        for number, (starts, ends) in enumerate(
            zip(job["start_logits"], job["end_logits"], strict=True)
        )
    ]
    assert [len(r.start_logits) for r in results] == [len(f.input_ids) for f in features]
    files = [str(folder / name) for name in ("predictions.json", "nbest.json", "null.json")]
    predictions = compute_predictions_logits(
        examples, features, results, job["n_best_size"], job["max_answer_length"], True,
        *files, False, job["version_2"], job["threshold"], tokenizer,
    )  # fmt: skip
    return {
        "predictions": predictions,
        "n_best": json.loads(Path(files[1]).read_text()),
        "null": json.loads(Path(files[2]).read_text()) if job["version_2"] else None,
    }


def score(job, examples) -> dict:
    from transformers.data.metrics.squad_metrics import squad_evaluate

    no_answer = job.get("no_answer_scores")  # no threshold of its own, so it looks for the best
    return squad_evaluate(examples, job["predictions"], no_answer, 1e9)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
