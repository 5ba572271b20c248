"""The sizes of a BERT model, read from and written to its configuration file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.errors import ModelError

ACTIVATIONS = ("gelu", "gelu_new", "relu")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a BERT encoder (Devlin et al., arXiv 1810.04805, section 3).

    Args:
        vocab_size: Rows of the word embeddings.
        hidden_size: Width H of the hidden states.
        num_hidden_layers: Number L of encoder layers.
        num_attention_heads: Number A of attention heads; divides ``hidden_size``.
        intermediate_size: Width I of the feed-forward layers.
        max_position_embeddings: Longest input in tokens.
        type_vocab_size: Rows of the segment embeddings.
        layer_norm_eps: Added to the variance in LayerNorm.
        hidden_act: Activation of the feed-forward layers: ``gelu`` (with erf), ``gelu_new`` (with
            tanh) or ``relu``.
        initializer_range: Standard deviation of freshly drawn weights.

    Raises:
        ModelError: If the sizes do not fit together.

    Example:
        >>> Architecture(num_hidden_layers=2, hidden_size=128, num_attention_heads=2,
        ...              intermediate_size=512).parameters()
        4369666
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in _SIZES:
            _require_size(name, getattr(self, name))
        for name in ("layer_norm_eps", "initializer_range"):
            _require_positive(name, getattr(self, name))
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size is {self.hidden_size}; expected a multiple of "
                f"num_attention_heads ({self.num_attention_heads}); check the model's configuration"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ModelError(
                f"hidden_act is {self.hidden_act!r}; expected one of {', '.join(ACTIVATIONS)}; "
                "choose a model with one of these activations"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_file(cls, path: Path | str) -> Architecture:
        """Read a ``config.json`` (Hugging Face) or ``bert_config.json`` (Google).

        Args:
            path: The file.

        Raises:
            ModelError: If it is missing, broken or describes something other than BERT.
        """
        path = Path(path)
        values = _read_object(path)
        _require_bert(path, values)
        missing = [name for name in _REQUIRED if name not in values]
        if missing:
            raise ModelError(
                f"{path} does not name {', '.join(missing)}; expected the configuration of a BERT "
                "model; point to the folder of one"
            )
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            return cls(**known)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    def to_hugging_face(self) -> dict[str, Any]:
        """The configuration as Hugging Face's ``BertForQuestionAnswering`` reads it."""
        sizes = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            "architectures": ["BertForQuestionAnswering"],
            "model_type": "bert",
            **sizes,
            "attention_probs_dropout_prob": 0.1,
            "hidden_dropout_prob": 0.1,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "torch_dtype": "float32",
        }

    def parameters(self) -> int:
        """Number of weights, the question answering head's included and no pooler's."""
        hidden, wide = self.hidden_size, self.intermediate_size
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        attention = 4 * (hidden * hidden + hidden)
        feed_forward = 2 * hidden * wide + wide + hidden
        layer = attention + feed_forward + 2 * 2 * hidden
        return rows * hidden + 2 * hidden + self.num_hidden_layers * layer + 2 * hidden + 2

    def flops_per_token(self, length: int) -> int:
        """Floating point operations of the matrix products of one token's forward pass.

        ``L · (2 · (4H² + 2HI) + 4SH) + 4H``: four products H by H and two H by I a layer, two
        operations a weight; the products QKᵀ and PV over S tokens, and the head's two columns.
        Element-wise work is not counted.

        Args:
            length: Sequence length S in tokens.
        """
        hidden, wide = self.hidden_size, self.intermediate_size
        layer = 2 * (4 * hidden * hidden + 2 * hidden * wide) + 4 * length * hidden
        return self.num_hidden_layers * layer + 4 * hidden

    def training_flops(self, batch: int, length: int) -> int:
        """Floating point operations of one forward and backward pass.

        ``3 · B · S · flops_per_token(S)``: the backward pass has two products, one for the input's
        gradient and one for the weight's, for each product of the forward pass.

        Args:
            batch: Number of examples B.
            length: Sequence length S in tokens.
        """
        return 3 * batch * length * self.flops_per_token(length)


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)


def _require_size(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(
            f"{name} is {value!r}; expected a whole number of at least 1; "
            "check the model's configuration"
        )


def _require_positive(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < float(value) < 1:  # type: ignore[arg-type]
        raise ModelError(
            f"{name} is {value!r}; expected a number between 0 and 1; "
            "check the model's configuration"
        )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} does not exist; expected the configuration of a BERT model; "
            "point to the folder of one"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; check the path") from None
    except ValueError as error:
        raise ModelError(
            f"{path} is not JSON ({error}); expected a BERT configuration; get the model again"
        ) from None
    if not isinstance(values, dict):
        raise ModelError(
            f"{path} holds a {type(values).__name__}; expected a JSON object; get the model again"
        )
    return values


def _require_bert(path: Path, values: dict[str, Any]) -> None:
    # Google's file has no model_type.
    kind = values.get("model_type", "bert")
    if kind != "bert":
        raise ModelError(
            f"{path} describes a model of type {kind!r}; expected 'bert'; choose a BERT model"
        )
    positions = values.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ModelError(
            f"{path} has position_embedding_type {positions!r}; expected 'absolute'; "
            "choose a BERT model with absolute positions"
        )
