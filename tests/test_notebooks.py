"""The notebooks of `colab/`: what is committed was run, and every one runs from top to bottom (`make test-slow`)."""

import json
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
NAMES = ["analyse", "finetune", "pretrain", "reconstruct"]


def test_all_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_what_is_committed_has_been_run_without_error(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs) or path.stem == "finetune"
    assert path.stat().st_size < 2**20
    text = json.dumps(outputs)
    assert "/root/" not in text
    assert "/tmp/" not in text
    assert "/home/" not in text
    assert f"/colab/{path.name}" in cells[0]["source"][2]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """In an empty directory, with the settings of a test; an error in any cell fails."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("LOCALMIM_FAST", "1")
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as a reader has, instead of the tests' eight
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    for file in (path.with_name("fashion_mnist.safetensors"), path.with_name("fashion_mnist.png")):
        shutil.copy(file, tmp_path)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    if path.stem != "reconstruct":  # which trains nothing
        assert list((tmp_path / "runs").glob("*/checkpoints/*/manifest.json"))
