"""The notebooks of docs/notebooks, executed again in place: ``python scripts/notebooks.py [NAME …]``.

Needs ``pip install nbclient ipykernel`` beside the project. The times of cells, and what goes to standard
error, are left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def main() -> None:
    """Execute those that are named, or all."""
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.metadata.pop("execution", None)
                # Progress goes to standard error; results to a cell's value.
                cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
        nbformat.write(notebook, path)
        print(os.path.relpath(path))


if __name__ == "__main__":
    main()
