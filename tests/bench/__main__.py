"""All benchmarks, in one run: ``python tests/bench``."""

import evaluator
import launch
import session
import sidebar

session.main()
evaluator.main()
launch.main()
sidebar.main()
