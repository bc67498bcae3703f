"""Nodes and their state machine: pure values and functions. No socket, no clock, no Redis."""

from clusterer.membership.addresses import ADVICE, AddressWarning, address_warnings
from clusterer.membership.machine import FAILURES, TRANSITIONS, Event, apply, next_look
from clusterer.membership.node import Condition, Node, NodeKey, State

__all__ = [
    "ADVICE",
    "FAILURES",
    "TRANSITIONS",
    "AddressWarning",
    "Condition",
    "Event",
    "Node",
    "NodeKey",
    "State",
    "address_warnings",
    "apply",
    "next_look",
]
