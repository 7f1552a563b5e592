"""Execute a notebook headless, print its outputs as they come, and write the executed notebook as HTML.

usage: python notebooks/run.py NOTEBOOK.ipynb RESULT.html
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from traitlets.config import Config

# What came in pieces would have a line of the page for each.
WHOLE_LINES = Config({"CoalesceStreamsPreprocessor": {"enabled": True}})


class Narrator(NotebookClient):
    """A notebook client that prints what a reader of the page would see."""

    _executed = 0
    _in_line = False  # a progress line that is still written over

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Print each output as it arrives."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            self._write(content["text"])
        elif kind in ("display_data", "execute_result"):
            self._show(content["data"])
        elif kind == "update_display_data":
            self._write("\r" + content["data"].get("text/plain", ""))
            self._in_line = True
        return super().process_message(msg, cell, cell_index)

    def _show(self, data: dict[str, Any]) -> None:
        images = [kind for kind in data if kind.startswith("image/")]
        if images:
            size = len(data[images[0]])
            if images[0] != "image/svg+xml":
                size = len(base64.b64decode(data[images[0]]))
            self._write(f"[plot: {images[0]}, {size:,} bytes]\n")
        else:
            self._write(str(data.get("text/plain", "")).rstrip("\n") + "\n")

    def show_source(self, cell: Any, cell_index: int) -> None:
        """Print a cell's text, or its source before it runs."""
        if cell.cell_type == "markdown":
            self._write(f"\n{cell.source}\n")
        if cell.cell_type == "code":
            self._executed += 1
            prompt = f"In [{self._executed}]"
            prompt = f"\033[1m{prompt}\033[0m" if sys.stdout.isatty() else prompt
            self._write(f"\n{prompt} " + cell.source.replace("\n", "\n    ") + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write("\n" + text if self._in_line and not text.startswith("\r") else text)
        self._in_line = False
        sys.stdout.flush()


def main(source: Path, target: Path) -> int:
    """Run ``source``; write ``target`` whatever happens; 0 if every cell succeeded."""
    notebook = nbformat.read(source, as_version=4)
    client = Narrator(
        notebook,
        timeout=300,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(source.parent)}},
    )
    client.on_cell_start = client.show_source
    status = 0
    try:
        client.execute()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        status = 1
    target.parent.mkdir(parents=True, exist_ok=True)
    page, _ = HTMLExporter(config=WHOLE_LINES).from_notebook_node(notebook)
    target.write_text(page, encoding="utf-8")
    print(f"\nThe executed notebook: {target}")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
