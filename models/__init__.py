"""Plants (simulated processes) and their physics. Of our own packages a model may import only ``safety.values``."""
