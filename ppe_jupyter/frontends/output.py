"""What a remote evaluation prints and draws, shown as it comes and in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ..remote.session import Display, Output, Text

# A kernel's flush waits for its I/O thread (about 0.3 ms), so not for each of 100,000 lines; left alone, text
# would lie there for 0.2 s.
FLUSH_AFTER = 0.05


class Console:
    """Shows the outputs of one evaluation; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = ""
        self._flushed = 0.0

    def __call__(self, output: Output) -> None:
        """Text goes to stdout or stderr; anything richer is displayed."""
        if isinstance(output, Text):
            if output.stream != self._last:
                self._flush()
            self._last = output.stream
            (sys.stderr if output.stream == "stderr" else sys.stdout).write(output.text)
            if self._clock() - self._flushed > FLUSH_AFTER:
                self._flush()
        elif isinstance(output, Display):
            from IPython.display import display

            self._flush()
            data = {"text/plain": "[plot]", **output.data}
            display(data, raw=True, metadata=dict(output.metadata))

    def _flush(self) -> None:
        self._flushed = self._clock()
        (sys.stderr if self._last == "stderr" else sys.stdout).flush()
