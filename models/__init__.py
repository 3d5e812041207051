"""Plants (simulated processes) and the physics they stand on. Of our own packages a model may import only ``safety.values``."""
