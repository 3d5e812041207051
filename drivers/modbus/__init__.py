"""Modbus TCP. From the wire up:

``mbap`` cuts frames, ``pdu`` knows requests and replies, ``codec`` knows values; ``link`` is one connection with its
``transaction`` batches, ``endpoint`` shares it between devices; ``planner`` makes blocks of points, ``refusals`` learns
what a device does not answer, ``sweep`` is one poll, ``driver`` puts it together. ``registers`` and ``server`` are the
other side, for plants. ``settings`` is what the YAML files say.
"""
