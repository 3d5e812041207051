"""Modbus TCP: codec, planner, connection, driver, each in its own module."""
