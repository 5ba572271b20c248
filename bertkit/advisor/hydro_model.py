"""The best model of a search, as the published SDA hands it out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bertkit.config import Scalar
from bertkit.errors import AdvisorError

_LINE = "=" * 47


@dataclass(frozen=True, kw_only=True)
class HydroModel:
    """What a launch came to; a search can start again from it.

    Args:
        model_type: Such as ``"BERT"``.
        model: Folder of the trained model.
        metrics: Each a mapping of ``name`` and ``value``.
        experiment_id: Number of the experiment in its store, where there was a search.
        store: The store.
        model_parameters: Values the model was trained with.
        settings: Settings of the launch.

    Example:
        >>> model = HydroModel(model_type="BERT", metrics=[{"name": "f1", "value": 90.9}])
        >>> HydroModel.from_json(model.to_json()) == model
        True
    """

    model_type: str
    model: str = ""
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=list)
    experiment_id: int | None = None
    store: str | None = None
    model_parameters: Mapping[str, Scalar] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def explain(self) -> None:
        """Print model type, path, experiment and metrics."""
        lines = [
            "",
            _LINE,
            "***    Best Trained Model    ***",
            _LINE,
            f"  Model Type: {self.model_type}",
            f"  Model Saved Path: {self.model}",
            f"  Experiment id is {self.experiment_id}",
            "  === Result Metrics ===",
            *(f"    {metric['name']}: {metric['value']}" for metric in self.metrics),
            _LINE,
        ]
        sys.stdout.write("\n".join(lines) + "\n")

    def to_json(self) -> str:
        """Everything as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True, default=str)

    def save_to_path(self, save_path: str | Path) -> None:
        """Write it to a file; `load` reads it back."""
        Path(save_path).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def from_json(cls, text: str) -> HydroModel:
        """Read what `to_json` wrote.

        Raises:
            AdvisorError: If the text is something else.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise AdvisorError(f"this is no saved HydroModel: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> HydroModel:
        """Read what `save_to_path` wrote.

        Raises:
            AdvisorError: If there is no such file, or it holds something else.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AdvisorError(f"cannot read a HydroModel from {path}: {error}") from None
        return cls.from_json(text)
