"""What all notebooks have in common; that they run is nbmake's to say."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def cells(path):
    return [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text())["cells"]]


def test_there_are_notebooks():
    assert "bert_demo.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cells_open_it_in_colab_and_binder_and_set_it_up(path):
    (kind, head), (set_up_kind, set_up) = cells(path)[:2]
    assert (kind, set_up_kind) == ("markdown", "code")
    assert head.startswith("# ")
    assert f"github/bertkit/bertkit/blob/main/notebooks/{path.name})" in head
    assert f"/gh/bertkit/bertkit/HEAD?labpath=notebooks%2F{path.name})" in head
    assert set_up == cells(NOTEBOOKS[0])[1][1]  # the same everywhere


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_to_notebooks_that_are_there(path):
    for _, text in cells(path):
        for target in (part.split(")")[0] for part in text.split("](")[1:]):
            if "//" not in target:
                assert (path.parent / target).is_file(), target
