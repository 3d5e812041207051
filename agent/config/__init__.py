"""Configuration: one pydantic model file per subsystem, a loader whose errors say file, line, column and the fix."""

from agent.config.errors import ConfigError, ConfigErrors, Problem
from agent.config.loader import LoadedSite, load

__all__ = ["ConfigError", "ConfigErrors", "LoadedSite", "Problem", "load"]
