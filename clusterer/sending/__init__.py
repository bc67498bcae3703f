"""The sending side of an instance: its view of the nodes, and the ways of a packet to the log."""

from clusterer.sending.sender import Sender
from clusterer.sending.view import InstanceView

__all__ = ["InstanceView", "Sender"]
