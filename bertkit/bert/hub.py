"""Fetching a model from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

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


def fetch(model: str) -> Path:
    """Fetch a model's files, or find them in the hub's cache; shows progress on a terminal.

    Args:
        model: Hub id, such as ``google-bert/bert-base-uncased``.

    Returns:
        A folder in Hugging Face's layout.

    Raises:
        ModelError: If there is no such model, or the hub cannot be reached and the model was
            never fetched before.
    """
    try:
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=list(FILES)))
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
