"""What R is asked to do: the body of an evaluation's frame. Agreed with node/r/evaluator.R."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Any

from .. import values
from ..outputs import PlotOptions
from ..values import nodes, wire


@dataclass(frozen=True, kw_only=True)
class Request:
    """What R is to do: assign ``inputs``, run ``code``, send ``outputs``."""

    code: str | None = None
    print: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    plots: PlotOptions | None = None
    integer64: bool = False

    @property
    def label(self) -> str:
        """The first line of the code, or what else it does."""
        if self.code:
            return self.code.strip().partition("\n")[0]
        push, pull = ", ".join(self.inputs), ", ".join(self.outputs)
        return " ".join(f"({verb} {names})" for verb, names in (("push", push), ("pull", pull)) if names)

    def encode(self) -> list[wire.Buffer]:
        """The buffers of a frame's body. Raises ValueRefused."""
        if not (self.code is None or self.print or self.inputs or self.outputs or self.plots):
            return wire.dump_code(self.code)
        names = list(self.inputs)
        inputs = [values.node(self.inputs[name], name, integer64=self.integer64) for name in names]
        items = [
            values.node(self.code, "the code"),
            values.node(self.print or None),
            nodes.listing(inputs, names) if names else nodes.null(),
            nodes.characters(list(self.outputs)) if self.outputs else nodes.null(),
            _plots(self.plots) if self.plots else nodes.null(),
        ]
        # R reads the fewer numbers the faster.
        while items[-1].type is nodes.Type.NULL:
            items.pop()
        return wire.dump(nodes.listing(items))


def _plots(options: PlotOptions) -> nodes.Node:
    names = [option.name for option in fields(options)]
    return nodes.listing([values.node(value) for value in astuple(options)], names)
