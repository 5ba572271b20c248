"""The bundled sample: made-up articles with questions, in the form of SQuAD 1.1.

It is there so that a first run needs no download. Articles are written from a seed, out of
sentences and names that stand in this folder: about rivers, bridges or composers for training, and
about caves, castles or gardens for validation. Training and validation share no article, no name
and no wording of a question, so that a good score has to be earned by reading.

The form is that of Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text",
arXiv 1606.05250.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bertkit.squad.sample.articles import Article, write_article
from bertkit.squad.sample.domains import load_cultures, load_domains
from bertkit.squad.sample.values import Chance

__all__ = ["make_sample", "write_sample"]

_ARTICLES = {"train": 31, "dev": 24}  # of each domain


def make_sample(seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the sample.

    Args:
        seed: Another seed gives other articles and questions; the same seed the same ones.

    Returns:
        Training and validation data in the official nested form of SQuAD 1.1:
        ``{"version", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question",
        "answers": [{"text", "answer_start"}]}]}]}]}``.

    Example:
        >>> train, dev = make_sample(seed=0)
        >>> train["version"], sorted(train["data"][0])
        ('1.1', ['paragraphs', 'title'])
    """
    return _make_split("train", seed), _make_split("dev", seed)


def write_sample(folder: str | Path, seed: int = 0) -> None:
    """Write the sample as ``train-v1.1.json`` and ``dev-v1.1.json``.

    Args:
        folder: Where to; it is made if it is not there.
        seed: As in `make_sample`.

    Raises:
        OSError: If the files cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split, data in zip(("train", "dev"), make_sample(seed), strict=True):
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (folder / f"{split}-v1.1.json").write_text(text + "\n", encoding="utf-8")


def _make_split(split: str, seed: int) -> dict[str, Any]:
    cultures = load_cultures(split)
    articles: dict[str, dict[str, Any]] = {}
    for domain in load_domains(split):
        wanted = len(articles) + _ARTICLES[split]
        for number in range(10 * _ARTICLES[split]):
            if len(articles) == wanted:
                break
            # The key holds the domain's name, so that a new domain leaves the others as they were.
            chance = Chance(seed, *f"{split}/{domain.name}".encode(), number)
            article = write_article(domain, cultures, chance)
            if article.questions:
                articles.setdefault(article.title, _to_squad(article))
    return {"version": "1.1", "data": list(articles.values())}


def _to_squad(article: Article) -> dict[str, Any]:
    questions = [
        {
            "id": hashlib.sha256(f"{article.text}\n{question.text}".encode()).hexdigest()[:24],
            "question": question.text,
            "answers": [{"text": a.text, "answer_start": a.start} for a in question.answers],
        }
        for question in article.questions
    ]
    return {
        "title": article.title.replace(" ", "_"),
        "paragraphs": [{"context": article.text, "qas": questions}],
    }
