"""Saves checkpoints and dies at it, in a process that loads no TensorFlow and so starts at once.

``loop FOLDER`` saves one checkpoint after another until it is killed, and prints each step before
and after. ``crash FOLDER WHAT`` saves ``WHAT`` (``checkpoint``, ``model`` or ``model-again``) once
for each operation on the file system that saving consists of, dies right before it, and looks at
what is there.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from bertkit.run import MODEL_FOLDER
from bertkit.training import checkpoints
from bertkit.training.checkpoints import Position

KEEP = 2
FLOATS = 200_000
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.scandir")


def state(step: int) -> dict[str, np.ndarray]:
    """Arrays that belong to one step and to no other."""
    return {"weights": np.full(FLOATS, step, np.float32), "step": np.array([step], np.float32)}


def save(folder: Path, step: int) -> None:
    position = Position(global_step=step, best_f1=float(step), best_step=step, seconds=step / 8)
    checkpoints.save_checkpoint(folder, position, state(step), KEEP)


def newest_complete_step(folder: Path) -> int:
    """Step of the newest checkpoint, which must be whole."""
    position, arrays = checkpoints.load_newest_checkpoint(folder)
    step = position.global_step
    assert position == Position(step, float(step), -1.0, step, step / 8)
    assert arrays.keys() == state(step).keys()
    assert all(np.array_equal(arrays[name], state(step)[name]) for name in arrays)
    return step


def loop(folder: Path) -> None:
    step = newest_complete_step(folder) if checkpoints.checkpoints(folder) else 0
    while True:
        step += 1
        print("saving", step, flush=True)
        save(folder, step)
        print("saved", step, flush=True)


def crash(folder: Path, what: str) -> None:
    """Die before the first, the second, … operation, until saving gets through."""
    steps = []
    step = 1
    _save_all(folder, step, step)
    while True:
        step += 1
        model_step = 1 if what == "model-again" else step
        child = os.fork()
        if child == 0:
            _die_before(len(steps) + 1)
            if what == "checkpoint":
                save(folder, step)
            else:
                _save_model(folder, model_step, step)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        look = newest_complete_step if what == "checkpoint" else _content_of_model
        found = look(folder)
        assert found in (step - 1, step)
        steps.append(found == step)
        _save_all(folder, step, model_step)
    print(json.dumps({"deaths": len(steps), "after": sum(steps), "left": _left_overs(folder)}))


def _save_all(folder: Path, step: int, model_step: int) -> None:
    save(folder, step)
    _save_model(folder, model_step, step)


def _save_model(folder: Path, step: int, content: int) -> None:
    def write(scratch: Path) -> None:
        for name in ("one", "two"):
            (scratch / name).write_text(str(content))

    checkpoints.save_best_model(folder, step, write)


def _content_of_model(folder: Path) -> int:
    one, two = ((folder / MODEL_FOLDER / name).read_text() for name in ("one", "two"))
    assert one == two
    return int(one)


def _left_overs(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def _die_before(number: int) -> None:
    count = 0

    def look(event: str, _arguments: tuple) -> None:
        nonlocal count
        if event in OPERATIONS:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


if __name__ == "__main__":
    {"loop": loop, "crash": crash}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
