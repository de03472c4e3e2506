"""The notebook runs from top to bottom, in a folder of its own."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"


def test_the_notebook_is_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    for cell in code:
        compile(cell.source, "tour.ipynb", "exec")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    told = "\n".join(output.get("text", "") for cell in code for output in cell.outputs)
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert "pretrained" in told
    assert "nearest neighbor of the same class" in told
    assert "largest difference:" in told
    assert len(pictures) == 1
