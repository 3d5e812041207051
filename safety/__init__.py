"""The lowest layer: values, units, envelopes, interlocks, latches, the journal, the gate. Imports nothing of ours."""
