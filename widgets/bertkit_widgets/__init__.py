"""Forms and panels that run bertkit from a notebook.

Example:
    >>> from bertkit_widgets import Studio                          # doctest: +SKIP
    >>> Studio()                                                    # doctest: +SKIP
"""

from bertkit_widgets.ask import AskPanel
from bertkit_widgets.data import DataPanel
from bertkit_widgets.engines import EnginesPanel
from bertkit_widgets.hyperparameters import HyperparametersPanel
from bertkit_widgets.live import LivePanel
from bertkit_widgets.studio import Studio
from bertkit_widgets.trials import TrialsPanel

__all__ = [
    "AskPanel",
    "DataPanel",
    "EnginesPanel",
    "HyperparametersPanel",
    "LivePanel",
    "Studio",
    "TrialsPanel",
]
