"""What a process loads together with TensorFlow."""

import subprocess
import sys

from bertkit.loading_tensorflow import NOT_FOR_TRAINING

LOAD = """
import sys
from bertkit.loading_tensorflow import load_tensorflow
load_tensorflow(only_bertkit=sys.argv[1] == "True")
print(*(name for name in sys.argv[2:] if name in sys.modules))
import matplotlib.pyplot, pandas, sklearn
"""


def test_only_bertkits_own_processes_go_without_what_keras_might_want():
    assert loaded(only_bertkit=False) == {"sklearn", "pandas", "matplotlib"}
    assert loaded(only_bertkit=True) == set()


def loaded(*, only_bertkit):
    command = [sys.executable, "-c", LOAD, str(only_bertkit), *NOT_FOR_TRAINING]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())
