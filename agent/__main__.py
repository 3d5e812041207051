"""``python -m agent``: the same as ``poetd``.

With ``POETD_DIE_WITH_PARENT`` set it ends (SIGTERM) when whoever started it does: the demo and the tests leave nothing behind.
"""

import os
import signal

from agent.cli import main

if os.environ.get("POETD_DIE_WITH_PARENT"):
    from agent.runtime.process import die_with_parent

    die_with_parent(signal.SIGTERM)
main(prog_name="poetd")
