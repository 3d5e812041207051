"""Modbus TCP, plain and inside TLS, and Modbus RTU on serial lines and over TCP. From the wire up:

``mbap`` and ``rtu`` cut frames, ``pdu`` knows requests and replies, ``codec`` knows values; ``link`` is one TCP
connection, ``bus`` the master of one RTU line with what it knows of its ``slaves``, both working through batches of
``transaction``; ``serial_port`` and ``tls`` are what they run over, ``routes`` connects, ``endpoint`` shares the
connection between devices; ``planner`` makes blocks of points, ``refusals`` learns what a device does not answer,
``sweep`` is one poll, ``bits`` writes single bits, ``driver`` puts it together. ``registers`` and ``server`` are the
other side, for plants. ``settings`` and ``serial_setup`` are what the YAML files say.
"""
