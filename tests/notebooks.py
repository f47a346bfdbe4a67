"""Runs the notebooks, and tells whether their saved outputs are still what they give.

python -m tests.notebooks          run all three and save their outputs
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.readme import ROOT

FOLDER = ROOT / "notebooks"
NAMES = ("getting_started", "credit_usage", "failure_analysis")
Notebook = Any

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_PROBE = "probe"
_TIMEOUT_S = 120
_LARGEST_DIFFERENCE = 0.01


def read(name: str) -> Notebook:
    """Return a notebook as it is in the repository."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(name: str, folder: Path, *, probe: str = "None") -> tuple[Notebook, Any]:
    """Run a notebook top to bottom; return it with its outputs, and what the expression `probe` then gives as JSON.

    It runs in `folder/notebooks`, so the lakes that it makes are in `folder/data`. Raises CellExecutionError where a
    cell does.
    """
    notebook = read(name)
    place = folder / "notebooks"
    place.mkdir(parents=True, exist_ok=True)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({probe}, default=str))", id=_PROBE))
    NotebookClient(
        notebook,
        timeout=_TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(place)}},
    ).execute(env=_environment(folder))
    answer = json.loads("".join(output.text for output in notebook.cells.pop().outputs))
    return _tidied(notebook), answer


def _environment(folder: Path) -> dict[str, str]:
    """Return what the kernel sees: neither a lake nor a key of whoever runs this, and no settings of theirs."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("EXTEND_", "PIPELINE_", "MPL"))}
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": python_path, "TZ": "UTC"}


def _tidied(notebook: Notebook) -> Notebook:
    """Return it without what differs from one machine to the next."""
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
    return notebook


def texts(notebook: Notebook) -> list[tuple[str, str]]:
    """Return what is written below each cell, with the cell's ID: streams, and each text form of a result.

    There is no noise to be left out of it: the made-up organization is seeded, and no notebook shows a time of its own
    running. What depends on the versions of pandas and matplotlib is their wording alone.
    """
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            forms = {"stream": output["text"]} if output["output_type"] == "stream" else output.get("data", {})
            found += [(cell["id"], text) for kind, text in sorted(forms.items()) if kind != "image/png"]
    return found


def images(notebook: Notebook) -> dict[str, bytes]:
    """Return the plots, as PNG, by the ID of their cell."""
    return {
        cell["id"]: base64.b64decode(output["data"]["image/png"])
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    }


def look_alike(saved: bytes, made: bytes) -> bool:
    """Tell whether two plots show the same, as far as can be told: another matplotlib draws letters a little otherwise.

    Of one version they may differ in one part in a hundred, on average over all pixels.
    """
    import matplotlib.image
    import numpy as np

    if _drawn_by(saved) != _drawn_by(made):
        return True
    before, after = (matplotlib.image.imread(io.BytesIO(each), format="png")[:, :, :3] for each in (saved, made))
    return before.shape == after.shape and float(np.abs(before - after).mean()) < _LARGEST_DIFFERENCE


def _drawn_by(image: bytes) -> bytes | None:
    found = re.search(rb"Software\0(Matplotlib version[\d.]+)", image)
    return found and found[1]


def save(folder: Path) -> None:
    """Run all notebooks in an empty folder and save their outputs."""
    for name in NAMES:
        notebook, _ = executed(name, folder)
        path = FOLDER / f"{name}.ipynb"
        path.write_text(nbformat.writes(_with_small_images(notebook)) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1024:,.0f} KiB", file=sys.stderr)


def _with_small_images(notebook: Notebook) -> Notebook:
    """Return it with plots of 128 colours, which look the same and take a third of the room."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                image = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
                drawn_by = PngInfo()
                drawn_by.add_text("Software", image.info["Software"])
                small = io.BytesIO()
                image.convert("RGB").quantize(128).save(small, format="png", optimize=True, pnginfo=drawn_by)
                output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode() + "\n"
    return notebook


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        save(Path(empty))
