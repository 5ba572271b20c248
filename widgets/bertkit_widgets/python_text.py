"""The three lines of Python that do what the panels do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from bertkit.config import Scalar, settings


def changed(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Those of the values that differ from the default of their setting."""
    defaults = {setting.name: setting.default for setting in settings()}
    return {name: value for name, value in values.items() if value != defaults.get(name)}


def as_python(values: Mapping[str, Scalar], engines: int = 2) -> str:
    """Python that trains with these values.

    Args:
        values: Values of configuration fields.
        engines: Number of engines.
    """
    arguments = ", ".join(f"{name}={value!r}" for name, value in changed(values).items())
    config = f"config = Config({arguments})"
    if len(config) > 66:  # what a small page has room for
        filled = textwrap.fill(arguments, 60, break_long_words=False, break_on_hyphens=False)
        config = "config = Config(\n" + textwrap.indent(filled, "    ") + ",\n)"
    return (
        f"from bertkit import Cluster, Config\n\n{config}\n"
        f"with Cluster(n={engines}) as cluster:\n"
        "    result = cluster.train(config).wait()\n"
    )
