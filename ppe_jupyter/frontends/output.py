"""What a remote evaluation prints and draws, shown as it comes."""

from __future__ import annotations

import sys

from ..remote.session import Display, Output, Text


def show_output(output: Output) -> None:
    """Text goes to stdout or stderr at once; anything richer is displayed."""
    if isinstance(output, Text):
        stream = sys.stderr if output.stream == "stderr" else sys.stdout
        stream.write(output.text)
        stream.flush()
    elif isinstance(output, Display):
        from IPython.display import display

        display(output.data, raw=True, metadata=output.metadata)
