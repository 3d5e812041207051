"""The second channel of the safety layer: the same rows evaluated again, in plain Python, from their specification.

The specification is the text at the top of ``safety.kernels`` and in ``safety.expressions`` and ``safety.interlocks``. Nothing here
imports those modules or shares their arithmetic, so that one mistake cannot hide in both channels. What both use are
the declared rows (``envelope``), the table of units, and nothing else.
"""
