"""One package per protocol behind one interface. Of our own packages a driver may import only ``safety.values``."""
