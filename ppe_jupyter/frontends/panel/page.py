"""What of the panel lives in the page (``page.js``), where ipywidgets have no part for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets


class InPage(anywidget.AnyWidget):
    """One of the parts of the script, by its ``kind``."""

    _esm = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    kind = traitlets.Unicode().tag(sync=True)


class Seen(InPage):
    """Sends {"view", "seen"} for each view of the panel: again and again while it is looked at, once when no more."""

    kind = traitlets.Unicode("seen").tag(sync=True)


class Line(InPage):
    """A line of text to copy; with ``terminal`` also to be run in a terminal of the Jupyter server."""

    kind = traitlets.Unicode("line").tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)
    terminal = traitlets.Bool(False).tag(sync=True)


class Choice(InPage):
    """One of ``options``: (label, value, why it cannot be chosen or "")."""

    kind = traitlets.Unicode("choice").tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    options: Any = traitlets.List().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)


class Types(InPage):
    """The table of instance types: rows as ``lists.types`` has them, and the name of the chosen one."""

    kind = traitlets.Unicode("types").tag(sync=True)
    types: Any = traitlets.List().tag(sync=True)
    source = traitlets.Unicode().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)
