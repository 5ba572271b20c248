"""What can be configured: every field of a run with its default, unit, limits and meaning.

The form edits a `Config`, the command line parses one, the advisor proposes one and a run's folder
stores one. Reading a field's `Setting` is how each of them learns what the field means, so that a
default, a limit or a sentence of help is written once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from bertkit.errors import ConfigError, FieldProblem

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Setting:
    """What a person should know about one field of `Config`.

    Args:
        name: The field's name.
        type: Its Python type without ``None``.
        default: Its default value.
        optional: Whether ``None`` is allowed; ``help`` says what it then means.
        group: The part of the form it belongs to.
        help: One sentence for a tooltip or ``--help``.
        unit: Unit of its value, empty where it has none.
        minimum: Smallest allowed value.
        maximum: Largest allowed value.
        choices: All allowed values, empty where any value within the limits will do.
        log: Whether it is best moved on a logarithmic scale.
    """

    name: str
    type: type
    default: Scalar
    optional: bool
    group: str
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    log: bool = False

    def problem(self, value: object) -> str | None:
        """Say in one sentence what is wrong with ``value`` for this field, or return ``None``."""
        if value is None:
            return None if self.optional else f"is empty; expected {self.expectation()}"
        if not self._has_type(value):
            return f"is {value!r}; expected {self.expectation()}"
        if self.choices and value not in self.choices:
            near = get_close_matches(str(value), self.choices, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            return f"is {value!r}; expected {self.expectation()}{hint}"
        if isinstance(value, int | float) and not self._within(float(value)):
            return f"is {value!r}; expected {self.expectation()}"
        return None

    def expectation(self) -> str:
        """What the field accepts, in words: ``"a number from 0 to 1"``."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
        words = kind[self.type]
        if self.minimum is not None and self.maximum is not None:
            words += f" from {self.minimum:g} to {self.maximum:g}"
        elif self.minimum is not None:
            words += f" of at least {self.minimum:g}"
        if self.unit:
            words += f" ({self.unit})"
        return words

    def parse(self, text: str) -> Scalar:
        """Read the field's value from text typed on a command line or in a form."""
        word = text.strip()
        if self.optional and word.lower() in ("", "none", "null"):
            return None
        if self.type is bool and word.lower() in ("true", "yes", "on", "1"):
            return True
        if self.type is bool and word.lower() in ("false", "no", "off", "0"):
            return False
        try:
            if self.type is int:
                return int(word)
            if self.type is float:
                return float(word)
        except ValueError:
            return text
        return text

    def _has_type(self, value: object) -> bool:
        if self.type is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        if self.type is int:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, self.type)

    def _within(self, value: float) -> bool:
        if math.isnan(value) or math.isinf(value):
            return False
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return low <= value <= high


def _setting(default: Scalar, group: str, help: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"group": group, "help": help, **limits})


@dataclass(frozen=True)
class Config:
    """Everything that decides how a run goes.

    Args: see `settings`, or ``bertkit train --help``.

    Raises:
        ConfigError: If any value is of another type or outside its limits; all problems at once.

    Example:
        >>> config = Config(data="sample", learning_rate=2e-4)
        >>> config.replace(batch_size=96).batch_size
        96
    """

    # Data ----------------------------------------------------------------------------------------
    data: str = _setting(
        "sample",
        "data",
        "Folder with train-v1.1.json and dev-v1.1.json (or -v2.0), or 'sample' for the bundled "
        "questions.",
    )
    train_file: str | None = _setting(
        None, "data", "Training questions, where they are not in the data folder."
    )
    dev_file: str | None = _setting(
        None, "data", "Validation questions, where they are not in the data folder."
    )
    max_seq_length: int = _setting(
        384, "data", "Longest feature: question and paragraph window together.",
        unit="tokens", minimum=16, maximum=512,
    )  # fmt: skip
    doc_stride: int = _setting(
        128, "data", "How far the window moves over a paragraph that does not fit.",
        unit="tokens", minimum=1, maximum=512,
    )  # fmt: skip
    max_query_length: int = _setting(
        64, "data", "Longest question; what is beyond is cut.",
        unit="tokens", minimum=1, maximum=512,
    )  # fmt: skip
    max_answer_length: int = _setting(
        30, "data", "Longest answer that is predicted.", unit="tokens", minimum=1, maximum=512
    )
    null_score_diff_threshold: float = _setting(
        0.0,
        "data",
        "SQuAD 2.0: answer 'no answer' where its score beats the best span's by more than this.",
        unit="logits",
    )

    # Model ---------------------------------------------------------------------------------------
    model: str = _setting(
        "minilm",
        "model",
        "Folder or zip of a pretrained BERT, a Hugging Face hub id, or 'minilm' for the packaged "
        "22M parameter model.",
    )
    num_hidden_layers: int | None = _setting(
        None, "model", "Keep only the lowest layers of the pretrained model; empty keeps all.",
        unit="layers", minimum=1, maximum=48,
    )  # fmt: skip
    dropout: float = _setting(
        0.1, "model", "Share of hidden values and attention weights dropped while training.",
        minimum=0.0, maximum=0.9,
    )  # fmt: skip

    # Optimizer -----------------------------------------------------------------------------------
    optimizer: str = _setting(
        "lamb",
        "optimizer",
        "LAMB scales each tensor's update to the tensor (large batches); AdamW is the classic.",
        choices=("lamb", "adamw"),
    )
    learning_rate: float = _setting(
        1e-4, "optimizer", "Peak learning rate, reached after the warm-up.",
        minimum=1e-8, maximum=1.0, log=True,
    )  # fmt: skip
    warmup_rate: float = _setting(
        0.1, "optimizer", "Share of all steps in which the learning rate grows linearly from 0.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    weight_decay: float = _setting(
        0.01, "optimizer", "Decoupled decay of all weights but LayerNorm's and biases.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    beta_1: float = _setting(
        0.9, "optimizer", "Decay of the running mean of gradients.", minimum=0.0, maximum=0.9999
    )
    beta_2: float = _setting(
        0.999, "optimizer", "Decay of the running mean of squared gradients.",
        minimum=0.0, maximum=0.999999,
    )  # fmt: skip
    epsilon: float = _setting(
        1e-6, "optimizer", "Added to the root of the second moment.",
        minimum=1e-12, maximum=1e-2, log=True,
    )  # fmt: skip
    clip_norm: float = _setting(
        1.0, "optimizer", "Largest global norm of the gradients; 0 turns clipping off.", minimum=0.0
    )
    trust_clip: float = _setting(
        10.0, "optimizer", "LAMB's upper limit of the weight norm that scales an update (phi).",
        minimum=0.0,
    )  # fmt: skip

    # Batches and length --------------------------------------------------------------------------
    batch_size: int = _setting(
        32, "batches", "Examples of one optimizer step, over all ranks together.",
        unit="examples", minimum=1, maximum=65536,
    )  # fmt: skip
    micro_batch_tokens: int = _setting(
        4096, "batches", "Most tokens of one pass on one rank; larger batches are accumulated.",
        unit="tokens", minimum=512, maximum=1048576,
    )  # fmt: skip
    pad_to_max_length: bool = _setting(
        False, "batches", "Pad every feature to max_seq_length, and compute the padding too."
    )
    group_by_length: bool = _setting(
        False, "batches", "Draw batches of like length (less padding, less random batches)."
    )
    num_epochs: float = _setting(
        3.0, "batches", "Passes over the training data the schedule is made for.",
        unit="epochs", minimum=0.001, maximum=1000,
    )  # fmt: skip
    max_train_questions: int | None = _setting(
        None, "batches", "Train on a random choice of so many questions; empty takes all.",
        unit="questions", minimum=1,
    )  # fmt: skip

    # Early stop ----------------------------------------------------------------------------------
    target_f1: float = _setting(
        90.874, "early stop",
        "Training stops once the validation F1 reaches this; 100.1 never does.",
        unit="% F1", minimum=0.0, maximum=100.1,
    )  # fmt: skip
    step_threshold: int | None = _setting(
        None, "early stop", "Training stops at this step at the latest; empty runs all epochs.",
        unit="steps", minimum=1,
    )  # fmt: skip
    evaluate_every: int = _setting(
        50, "early stop", "Steps between two validations; 0 validates at the end only.",
        unit="steps", minimum=0,
    )  # fmt: skip
    evaluate_fraction: float = _setting(
        0.1, "early stop", "Share of the validation questions, chosen once from the seed.",
        minimum=0.0001, maximum=1.0,
    )  # fmt: skip

    # Run -----------------------------------------------------------------------------------------
    seed: int = _setting(
        42, "run", "Fixes data order, dropout, new weights, validation sample and proposals.",
        minimum=0, maximum=2**31 - 1,
    )  # fmt: skip
    precision: str = _setting(
        "auto",
        "run",
        "Compute type; weights and optimizer state are always float32. 'auto' takes bfloat16 where "
        "the processor has instructions for it.",
        choices=("auto", "bfloat16", "float32"),
    )
    compression: str = _setting(
        "none", "run", "Type in which gradients travel between ranks.", choices=("none", "float16")
    )
    checkpoint_every: int = _setting(
        500, "run", "Steps between two checkpoints; 0 writes one at the end only.",
        unit="steps", minimum=0,
    )  # fmt: skip
    keep_checkpoints: int = _setting(
        2, "run", "Newest checkpoints that are kept.", minimum=1, maximum=1000
    )
    output: str = _setting("runs", "run", "Folder that new runs make their own folder in.")
    tensorboard: bool = _setting(False, "run", "Also write TensorBoard event files.")

    def __post_init__(self) -> None:
        problems = check(dataclasses.asdict(self))
        if problems:
            raise ConfigError(problems)

    def replace(self, **changes: Scalar) -> Config:
        """Return a copy with some fields changed, checked like a new one."""
        return Config.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Scalar]:
        """Every field by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Make a configuration from names and values; what is not named keeps its default.

        Raises:
            ConfigError: If a name is not a field's, or a value does not fit.
        """
        problems = check(values)
        if problems:
            raise ConfigError(problems)
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read a configuration from a ``.json``, ``.yaml`` or ``.yml`` file.

        Raises:
            ConfigError: If the file is missing, is neither JSON nor YAML, or holds a wrong value.
        """
        return cls.from_dict(read_mapping(path))

    def save(self, path: str | Path) -> None:
        """Write every field to a ``.json``, ``.yaml`` or ``.yml`` file."""
        path = Path(path)
        if path.suffix == ".json":
            text = json.dumps(self.to_dict(), indent=2) + "\n"
        else:
            text = as_yaml(self.to_dict())
        path.write_text(text, encoding="utf-8")

    def changed(self) -> dict[str, Scalar]:
        """The fields that differ from their defaults."""
        return {
            setting.name: getattr(self, setting.name)
            for setting in settings()
            if getattr(self, setting.name) != setting.default
        }


def settings() -> tuple[Setting, ...]:
    """Every field of `Config` in the order in which a form shows them."""
    return _SETTINGS


def setting(name: str) -> Setting:
    """The `Setting` of one field.

    Raises:
        KeyError: If ``Config`` has no such field.
    """
    return next(s for s in _SETTINGS if s.name == name)


def check(values: Mapping[str, Any]) -> list[FieldProblem]:
    """Find every problem in names and values meant for a `Config`, without raising."""
    known = {s.name: s for s in _SETTINGS}
    problems = [_unknown(name, list(known)) for name in values if name not in known]
    for name, value in values.items():
        message = known[name].problem(value) if name in known else None
        if message:
            problems.append(FieldProblem(name, message))
    return problems or _contradictions(values)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a file of names and values in JSON or YAML.

    Raises:
        ConfigError: If there is no such file, or it does not hold names and values.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([FieldProblem("config", f"cannot read {path}: {error}")]) from None
    try:
        is_json = path.suffix == ".json"
        values = json.loads(text) if is_json else yaml.load(text, _Loader)  # noqa: S506 - it is safe
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        message = f"{path} is neither JSON nor YAML: {reason}"
        raise ConfigError([FieldProblem("config", message)]) from None
    if not isinstance(values, dict):
        message = f"{path} holds {type(values).__name__}; expected lines such as 'batch_size: 32'"
        raise ConfigError([FieldProblem("config", message)])
    return {str(name): value for name, value in values.items()}


def as_yaml(values: Mapping[str, Scalar]) -> str:
    """Fields and their values in YAML, as `read_mapping` reads them.

    Example:
        >>> print(as_yaml({"batch_size": 32, "output": "1e3"}), end="")
        batch_size: 32
        output: '1e3'
    """
    text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)
    return text


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``3e-5`` as a text; everyone who writes a learning rate means a number."""


class _Dumper(yaml.SafeDumper):
    """Puts a text that the loader would take for a number, such as ``0E0``, in quotes."""


for _side, _safe in ((_Loader, yaml.SafeLoader), (_Dumper, yaml.SafeDumper)):
    _side.yaml_implicit_resolvers = {
        key: list(resolvers) for key, resolvers in _safe.yaml_implicit_resolvers.items()
    }
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def _unknown(name: str, known: Sequence[str]) -> FieldProblem:
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "see 'bertkit train --help' for all fields"
    return FieldProblem(name, f"is not a configuration field; {hint}")


def _contradictions(values: Mapping[str, Any]) -> list[FieldProblem]:
    """Problems between fields that are each right by themselves."""
    length = values.get("max_seq_length", setting("max_seq_length").default)
    query = values.get("max_query_length", setting("max_query_length").default)
    if query > length - 4:
        message = (
            f"is {query}, which leaves no room for a paragraph in max_seq_length {length}; "
            f"expected at most {length - 4}"
        )
        return [FieldProblem("max_query_length", message)]
    return []


def _describe(field: dataclasses.Field[Any], annotation: Any) -> Setting:
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    kinds = [m for m in members if m is not type(None)] or [annotation]
    return Setting(
        name=field.name,
        type=kinds[0],
        default=typing.cast(Scalar, field.default),
        optional=bool(members),
        **field.metadata,
    )


_HINTS = typing.get_type_hints(Config)
_SETTINGS = tuple(_describe(f, _HINTS[f.name]) for f in dataclasses.fields(Config))
