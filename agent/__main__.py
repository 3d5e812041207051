"""``python -m agent``: the same as ``poetd``."""

from agent.cli import main

main(prog_name="poetd")
