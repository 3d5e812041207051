"""The lowest layer: shared values, envelopes, interlocks, latches, the write journal and the gate. Imports nothing of ours."""
