"""All benchmarks, in one run: ``python tests/bench``."""

import evaluator
import launch
import panel
import session
import sidebar
import tasks

session.main()
evaluator.main()
launch.main()
panel.main()
sidebar.main()
tasks.main()
