"""poetd: the edge control agent. The daemon, the POET loop, its configuration, telemetry and command line."""

__version__ = "0.1.0"
