"""Find and build a plant by the name a site gives it: ``module:Class`` and keyword arguments."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.plants.errors import PlantNotFoundError
from models.plant import Plant


def load_plant(use: str, options: Mapping[str, float | int | str | bool], search_path: Sequence[Path] = ()) -> Plant:
    """Import ``module:Class`` and build it.

    Args:
        use: such as ``models.building:AirHandlerPlant``.
        options: keyword arguments of the class.
        search_path: folders put in front of ``sys.path`` first.

    Raises:
        PlantNotFoundError: with what is missing or what the class said.
    """
    module_name, colon, class_name = use.partition(":")
    if not (module_name and colon and class_name):
        raise PlantNotFoundError(
            f"{use!r} does not name a plant: write module:Class, such as models.building:AirHandlerPlant"
        )
    for folder in reversed([str(folder) for folder in search_path]):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a foreign module may raise anything while it is imported
        raise PlantNotFoundError(f"{use}: {module_name} cannot be imported: {type(error).__name__}: {error}") from error
    plant_class = getattr(module, class_name, None)
    if plant_class is None:
        raise PlantNotFoundError(f"{use}: {module_name} has no class {class_name!r}")
    try:
        plant = plant_class(**options)
    except Exception as error:  # a foreign class may raise anything
        given = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "no options"
        raise PlantNotFoundError(f"{use} cannot be built with {given}: {type(error).__name__}: {error}") from error
    if not isinstance(plant, Plant):
        raise PlantNotFoundError(f"{use} is not a plant: it needs points, reset(seed, start) and step(commands, dt)")
    return plant
