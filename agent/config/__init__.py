"""Configuration: one pydantic model file per subsystem, and a loader whose errors say file, line, column and the remedy."""
