"""Objects between the master's R and the R of this machine, which is the one of rpy2's %%R."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from notebook_kernel import Kernel, one_message

pytestmark = pytest.mark.skipif(find_spec("rpy2") is None, reason="rpy2 is not installed")


def succeed(kernel: Kernel, code: str) -> None:
    """What else is shown depends on what ran before: R's past, rpy2's warnings."""
    assert not [each for each in kernel.cell(code) if each.output_type == "error"]


def test_objects_go_both_ways(kernel: Kernel) -> None:
    succeed(kernel, "%%remote_r\nfit <- lm(dist ~ speed, cars)\nmy.data <- cars")
    succeed(kernel, "%remote_pull fit my.data --to-r")
    succeed(kernel, "%load_ext rpy2.ipython")
    assert "3.93" in kernel.cell("%%R\nprint(coef(fit))\nstopifnot(identical(my.data, cars))").stdout
    kernel.cell("%%R\nadd <- local({ n <- 41; function(x) x + n })")
    assert kernel.cell("%remote_push add plus=add --from-r") == []
    assert kernel.cell("%remote_r add(1) + plus(0)").result == "83.0"
    assert "no variable 'nothing'" in one_message(kernel.cell("%remote_push nothing --from-r"))
    assert "nothing" in one_message(kernel.cell("%remote_pull nothing --to-r"))


def test_converters_of_rpy2_make_the_values(kernel: Kernel) -> None:
    kernel.cell(
        "from rpy2 import robjects\nrules = robjects.default_converter\nn = robjects.IntVector([1, 2])"
    )
    succeed(kernel, "%%remote_r -c rules -i n -o s\ns <- sum(n)")
    assert kernel.cell("type(s).__name__, list(s)").result == "('IntVector', [3])"
