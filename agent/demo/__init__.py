"""``poetd demo``: a plant, a broker and the agent, as real processes on real sockets, and a live view of what happens."""
