"""OPC UA. From the wire up:

``transport`` bounds what a server may send, ``security`` decides whom to trust, ``connection`` is one session;
``wire`` reads and writes the messages that matter for speed, ``values`` and ``quality`` know what they mean, ``nodes``
names them; ``reader`` polls, ``subscription`` listens, ``choice`` decides which is cheaper, ``driver`` puts it
together. ``scan`` browses a server; ``server`` is the other side, for plants. ``settings`` is what the YAML files say.
asyncua does the secure channel, the cryptography and everything that is rare.
"""
