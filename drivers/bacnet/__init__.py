"""BACnet/IP. From the wire up:

``frames`` is BVLC and NPDU, ``apdu`` the kinds of APDU, ``tags`` how values are written, ``services`` the requests and
their answers, ``names`` the standard's numbers. ``port`` is one UDP socket of ours with its ``peers``, one per device;
``planner`` makes requests of points, ``shapes`` decodes answers that look like the last one, ``capability`` asks what a
device can do, ``sweep`` is one poll, ``cov`` the subscriptions, ``priorities`` who holds a point, ``driver`` puts it
together. ``discovery`` is Who-Is. ``objects`` and ``server`` are the other side, for plants. ``settings`` is what the
YAML files say.
"""
