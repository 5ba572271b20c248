"""A BERT and questions so small that a test can train on them in seconds, and really learn.

Nothing here needs TensorFlow, so that a subprocess which does can be handed folders.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bertkit.bert.architecture import Architecture
from bertkit.bert.weights import HEAD, draw, shapes

FIRST = ["ada", "ben", "cleo", "dora", "emil", "fay", "gus", "hal", "ida", "jon", "kim", "leo"]
LAST = ["moss", "reed", "stone", "wells", "hart", "lane", "birch", "ford"]
PLACES = ["orlin", "tarn", "velda", "corin", "harrow", "lisk", "marsh", "penn"]
THINGS = ["bridge", "mill", "tower", "school", "harbour", "clock", "garden", "theatre"]
YEARS = [str(year) for year in range(1801, 1841)]
FILLER = [
    *("the", "river", "is", "wide", "and", "slow", "there", ","),
    *("people", "walk", "along", "it", "every", "day", "in", "summer"),
]
OTHER = [
    *("who", "where", "when", "was", "what", "did", "build", "built", "by"),
    *("stands", "at", "time", "a", "?", "."),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = list(
    dict.fromkeys([*SPECIAL, *FIRST, *LAST, *PLACES, *THINGS, *YEARS, *FILLER, *OTHER])
)


def write_model(folder: Path, *, layers: int = 2, hidden: int = 32, seed: int = 0) -> Path:
    """Write an encoder of random weights in Hugging Face's layout, without a head.

    Args:
        folder: Folder to make.
        layers: Encoder layers.
        hidden: Width of the hidden states; a multiple of 16.
        seed: Decides the weights.
    """
    architecture = Architecture(
        vocab_size=len(VOCABULARY), hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 16, intermediate_size=2 * hidden,
        max_position_embeddings=96, initializer_range=0.1,
    )  # fmt: skip
    folder.mkdir(parents=True)
    names = [name for name in shapes(architecture) if name not in HEAD]
    tensors = {name: draw(architecture, name, seed) for name in names}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(architecture.to_hugging_face()))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def write_questions(
    folder: Path, *, train: int = 96, dev: int = 40, seed: int = 0, impossible: float = 0.0
) -> Path:
    """Write ``train`` and ``dev`` questions as SQuAD v1.1, or v2.0 if some are impossible.

    A paragraph names a builder, a place and a year between some idle words; which of the three is
    asked for shows in the question's first word.

    Args:
        folder: Folder to make.
        train, dev: Number of questions.
        seed: Decides them.
        impossible: Share of questions that ask for what the paragraph does not say.
    """
    folder.mkdir(parents=True)
    version = "v2.0" if impossible else "v1.1"
    for part, (name, count) in enumerate((("train", train), ("dev", dev))):
        random = np.random.default_rng([seed, part])
        paragraphs = [_paragraph(random, f"{name}-{n}", impossible) for n in range(count)]
        data = {"version": version, "data": [{"title": name, "paragraphs": paragraphs}]}
        (folder / f"{name}-{version}.json").write_text(json.dumps(data))
    return folder


def _paragraph(random: np.random.Generator, name: str, impossible: float) -> dict:
    def one_of(words: list[str]) -> str:
        return str(random.choice(words))

    builder, place, year = f"{one_of(FIRST)} {one_of(LAST)}", one_of(PLACES), one_of(YEARS)
    thing = one_of(THINGS)
    idle = [" ".join(one_of(FILLER) for _ in range(random.integers(0, 20))) for _ in range(2)]
    context = f"{idle[0]} . {builder} built the {thing} in {place} in {year} . {idle[1]} ."
    question, answer = [
        (f"who built the {thing} ?", builder),
        (f"where stands the {thing} ?", place),
        (f"when was the {thing} built ?", year),
    ][random.integers(3)]
    qa = {"id": name, "question": question, "answers": []}
    if impossible:
        qa["is_impossible"] = bool(random.random() < impossible)
    if qa.get("is_impossible"):
        qa["question"] = "what did the people at the river build ?"
    else:
        qa["answers"] = [{"text": answer, "answer_start": context.index(f" {answer} ") + 1}]
    return {"context": context, "qas": [qa]}


def settings(model: Path, data: Path) -> dict[str, object]:
    """Settings of a run that learns the questions within some 120 steps."""
    return {
        "model": str(model), "data": str(data), "max_seq_length": 96, "max_query_length": 16,
        "doc_stride": 16, "batch_size": 16, "num_epochs": 4, "optimizer": "adamw",
        "learning_rate": 3e-3, "dropout": 0.0, "precision": "float32", "evaluate_fraction": 1.0,
        "evaluate_every": 20, "checkpoint_every": 0,
    }  # fmt: skip
