"""All benchmarks, in one run: ``python tests/bench``."""

import evaluator
import launch
import session

session.main()
evaluator.main()
launch.main()
