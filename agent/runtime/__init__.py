"""The running daemon: supervisor, core (the scan loop), the operate workers, the clock, the shared image."""
