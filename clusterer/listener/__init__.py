"""Receiving: BIN connections, packets for callbacks, module timeouts."""

from clusterer.listener.callback_queues import in_thread
from clusterer.listener.counters import Counters
from clusterer.listener.inquiries import Listing
from clusterer.listener.registrations import Callback, ReceiveInfo
from clusterer.listener.server import Listener

__all__ = ["Callback", "Counters", "Listener", "Listing", "ReceiveInfo", "in_thread"]
