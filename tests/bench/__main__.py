"""All benchmarks, in one run: ``python tests/bench``."""

import launch
import session

session.main()
launch.main()
