"""A sample utility of any size, from a seed: meters, weather, plants, market and fleet, delivered with the dirt of a real one.

`simulate` writes its deliveries and the truth behind them, `deliver_day` lets one more morning arrive. The rooms: `utility` (size,
place, calendar, random streams), `weather`, `meters`, `plants` (wind, sun, market, fleet), `dirt`, `delivery` (files).
"""

from lakehouse.simulation.delivery import DeliveredFile, Simulation, deliver_day, deliveries, read_utility, simulate
from lakehouse.simulation.dirt import FILE_FAULTS, KINDS, READING_FAULTS
from lakehouse.simulation.utility import Utility

__all__ = [
    "FILE_FAULTS",
    "KINDS",
    "READING_FAULTS",
    "DeliveredFile",
    "Simulation",
    "Utility",
    "deliver_day",
    "deliveries",
    "read_utility",
    "simulate",
]
