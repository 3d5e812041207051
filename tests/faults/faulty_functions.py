"""Control functions of a bad site, as the text of its site_functions.py: each behaves while ``mode`` is 0 and fails in its own way else."""

from __future__ import annotations

GOOD = (40.0, 0.0)
"""(heating, cooling) of every function while it behaves."""

SOURCE = '''
import ctypes
import os
import time

from agent.domains.building_management import HVACCommand

GOOD = HVACCommand(40.0, 0.0, 50.0, "fine")


def healthy(temp, mode) -> HVACCommand:
    return GOOD


def raises(temp, mode) -> HVACCommand:
    if mode > 0:
        raise ValueError("sensor table is empty")
    return GOOD


def raises_but_holds(temp, mode) -> HVACCommand:
    if mode > 0:
        raise ValueError("sensor table is empty")
    return GOOD


def not_a_number(temp, mode) -> HVACCommand:
    return HVACCommand(float("nan"), 0.0, 50.0) if mode > 0 else GOOD


def text(temp, mode) -> HVACCommand:
    return HVACCommand("much", 0.0, 50.0) if mode > 0 else GOOD


def no_command(temp, mode) -> HVACCommand:
    return "heating on please" if mode > 0 else GOOD


def far_too_much(temp, mode) -> HVACCommand:
    return HVACCommand(500.0, 0.0, 50.0) if mode > 0 else GOOD


def heats_and_cools(temp, mode) -> HVACCommand:
    return HVACCommand(80.0, 80.0, 50.0) if mode > 0 else GOOD


def loops(temp, mode) -> HVACCommand:
    while mode > 0:
        pass
    return GOOD


def exits(temp, mode) -> HVACCommand:
    if mode > 0:
        os._exit(1)
    return GOOD


def calls_sys_exit(temp, mode) -> HVACCommand:
    if mode > 0:
        raise SystemExit(1)
    return GOOD


def segfaults(temp, mode) -> HVACCommand:
    if mode > 0:
        ctypes.string_at(0)
    return GOOD


def eats_memory(temp, mode) -> HVACCommand:
    eaten = []
    while mode > 0:
        eaten.append(bytes(16 << 20))
    return GOOD


def sleeps(temp, mode) -> HVACCommand:
    if mode > 0:
        time.sleep(0.6)
    return GOOD


def sensitive(temp, mode) -> HVACCommand:
    """One function of many zones, which hangs for some of them."""
    while mode > 0:
        pass
    return GOOD
'''

STUCK = "abcdefgh"
"""So many functions more, each of its own name, that hang."""

SOURCE += "".join(
    f"""

def stuck_{letter}(temp, mode) -> HVACCommand:
    while mode > 0:
        pass
    return GOOD
"""
    for letter in STUCK
)
SOURCE += """

def healthy_last(temp, mode) -> HVACCommand:
    return GOOD
"""
