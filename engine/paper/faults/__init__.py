"""Faults on command."""

from engine.paper.faults.args import FaultError
from engine.paper.faults.desk import Fault, FaultDesk
from engine.paper.faults.plan import Plan
from engine.paper.faults.table import FAULTS

__all__ = ["FAULTS", "Fault", "FaultDesk", "FaultError", "Plan"]
