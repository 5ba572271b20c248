"""Fetching a model from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from tqdm.auto import tqdm

from bertkit.bert import hugging_face
from bertkit.errors import ModelError

FILES = (
    hugging_face.CONFIG_FILE,
    hugging_face.WEIGHTS_FILE,
    hugging_face.INDEX_FILE,
    "model-*-of-*.safetensors",
    hugging_face.VOCAB_FILE,
    hugging_face.TOKENIZER_FILE,
)


OnProgress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes in all, as far as they are known."""


def fetch(model: str, on_progress: OnProgress | None = None) -> Path:
    """Fetch a model's files, or find them in the hub's cache.

    A fetch that broke off goes on where it did, and what came is checked against the hub's hashes.

    Args:
        model: Hub id, such as ``google-bert/bert-base-uncased``.
        on_progress: Told how far it is; without it, progress is shown on the terminal.

    Returns:
        A folder in Hugging Face's layout.

    Raises:
        ModelError: If there is no such model, or the hub cannot be reached and the model was
            never fetched before.
    """
    try:
        shown = None if on_progress is None else _bars_that_tell(on_progress)
        return Path(
            huggingface_hub.snapshot_download(model, allow_patterns=list(FILES), tqdm_class=shown)
        )
    except errors.GatedRepoError:
        raise ModelError(
            f"model {model!r} may not be fetched without an account; expected an open model; "
            "accept its terms on the hub and log in with 'hf auth login', or choose another"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"model {model!r} is neither a folder or zip here nor a model on the Hugging Face hub; "
            "check its spelling"
        ) from None
    except Exception as error:  # the client passes on whatever its HTTP library raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model {model!r} is no folder or zip here and could not be fetched from the Hugging "
            f"Face hub ({reason}); check its spelling and the network, or use 'minilm'"
        ) from None


def _bars_that_tell(on_progress: OnProgress) -> Any:
    """The client's progress bars, which tell how far they are instead of showing it."""

    class Bar(tqdm):  # type: ignore[type-arg]
        def display(self, *_: Any, **__: Any) -> None:
            if self.unit == "B" and self.total:  # the others count files
                on_progress(int(self.n), int(self.total))

    return Bar
