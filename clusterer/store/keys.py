"""Names of all Redis keys. docs/redis-keys/ shows each with a redis-cli line."""

from __future__ import annotations

from collections.abc import Callable

FORMAT = "clusterer:format"
"""String: the format of all other keys, see `format`."""
CLUSTERS = "clusterer:clusters"
QUEUES = "clusterer:queues"
INSTANCES = "clusterer:instances"
REGISTRATIONS = "clusterer:registrations"
"""String: counter of the registrations of modules by all instances."""
SENDERS = "clusterer:senders"
HANDOVERS = "clusterer:handovers"
"""Set of the senders with a closing guard, or with one whose worker died."""
LOADED = "clusterer:loaded"
"""String: the Redis ms and the author of the last reload; for some seconds "restoring", while a
process restores the nodes from the table."""
PATHS = "clusterer:paths"
"""Hash: sender → number that changes with each change of its path records. A sender without a
record is not in it, so it is nearly always empty."""

CONSOLE_USERS = "clusterer:console:users"
"""Hash: ``user:NAME`` or ``token:NAME`` → role, time, hash of the secret; see `console_users`."""
CONSOLE_ENDED = "clusterer:console:ended"
"""Sorted set: session of the console that its user has ended → Redis ms at which it expires."""


def _of_cluster(kind: str) -> Callable[[int, str], str]:
    def key(cluster_id: int, protocol: str) -> str:
        return f"clusterer:{cluster_id}:{protocol}:{kind}"

    return key


def _of_sender(kind: str) -> Callable[[int], str]:
    def key(sender: int) -> str:
        return f"clusterer:{kind}:{sender}"

    return key


def _of_queue(kind: str) -> Callable[[str], str]:
    def key(queue: str) -> str:
        return f"clusterer:{kind}:{queue}"

    return key


def _of_instance(kind: str) -> Callable[[int], str]:
    def key(receiver: int) -> str:
        return f"clusterer:{kind}:{receiver}"

    return key


# -- of a cluster ---------------------------------------------------------------------------------

nodes = _of_cluster("nodes")
"""Set of the machine_ids of a cluster."""
version = _of_cluster("version")
"""Counter that grows with every change in a cluster."""
due = _of_cluster("due")
"""Sorted set: machine_id → Redis ms at which the node must be looked at next."""
dirty = _of_cluster("dirty")
"""Sorted set: machine_id → version not yet written to the table."""
synced = _of_cluster("synced")
"""Hash: machine_id → ``state no_tries last_attempt`` as last read from or written to a row.

While a write is under way, all that the row may hold by our own hand: comma separated.
"""
suspicions = _of_cluster("suspicions")
"""Hash: machine_id → suspicion of the node, see `membership.suspicions`."""
confirmed = _of_cluster("confirmed")
"""Hash: machine_id → ``<ms> <prober or sender>`` of the last ack."""
probers = _of_cluster("probers")
"""Sorted set: machine_id of a prober → Redis ms of its last heartbeat."""
probers_ring = _of_cluster("prober-ring")
"""Stream of length 1 that gets an entry when all probers of a cluster are asked."""

# -- of a sender ----------------------------------------------------------------------------------

paths = _of_sender("paths")
"""Hash: ``cluster/machine_id/generation`` → path record, see `membership.paths`."""
log = _of_sender("log")
"""Stream of the packets a sender wants delivered; ids are ``<sequence>-<ms>``."""
counters = _of_sender("counters")
"""Hash: ``sequence`` and, per ``cluster:protocol``, how many packets were ever appended."""
committed = _of_sender("committed")
"""Hash: ``cluster/machine_id/generation`` → committed offset."""
committed_count = _of_sender("committed-count")
"""Hash: ``cluster/machine_id/generation`` → packet count of the cluster at the offset."""
lease = _of_sender("lease")
"""String with a TTL: token of the worker that delivers this sender's log."""
closing = _of_sender("closing")
"""Hash: ``cluster/machine_id/generation`` → ``<expiry ms> <token> <first sequence kept>``.

The closing guards, there while a connection closes; see ``lua/include/guards.lua``.
"""
stats = _of_sender("stats")
"""Hash: ``cluster/machine_id/generation/counter``; see `deliveries`."""
sums = _of_sender("sums")
"""Hash with a TTL: sums of the traffic of some senders, of which this one is the first."""

# -- of a delivery queue --------------------------------------------------------------------------

shares = _of_queue("shares")
"""Hash with a TTL: number of a worker → ``<expiry ms> <senders that it has>``."""
pending = _of_queue("pending")
"""Set of the senders whose log has packets to deliver."""
waiting = _of_queue("waiting")
"""Set of the senders whose log only waits for nodes to come up (replay)."""
enqueued = _of_queue("enqueued")
"""String with a TTL, the enqueued flag: a delivery job is queued and has not started."""
ring = _of_queue("ring")
"""Stream of length 1 that gets an entry when a sender becomes pending."""

# -- of an instance -------------------------------------------------------------------------------

modules = _of_instance("modules")
"""Hash: what an instance registered, and ``heartbeat``."""
notices = _of_instance("notify")
"""Capped stream of the module timeouts for an instance."""
capture = _of_instance("capture")
"""Capped stream with a TTL: what an instance receives while ``clusterer tail`` runs."""
listings = _of_instance("listings")
"""Hash with a TTL: ``kind:cluster_id`` → number of entries that an instance's observer has."""
inquiries = _of_instance("inquiries")
"""Capped list with a TTL: inquiries about the entries of an instance's observers."""
links = _of_instance("links")
"""Hash with a TTL: ``cluster_id/machine_id`` → link to a node of a 3.x cluster, see `links`."""

# -- with other parts -----------------------------------------------------------------------------


def node(cluster_id: int, protocol: str, machine_id: int) -> str:
    """Hash of one node."""
    return f"clusterer:{cluster_id}:{protocol}:node:{machine_id}"


def events(cluster_id: int) -> str:
    """Capped stream: audit of everything that changed in a cluster."""
    return f"clusterer:{cluster_id}:events"


def history(cluster_id: int, protocol: str, machine_id: int) -> str:
    """Capped stream with a TTL: samples of a node's traffic, see `history`."""
    return f"clusterer:{cluster_id}:{protocol}:history:{machine_id}"


def path_events(cluster_id: int) -> str:
    """Capped stream: audit of the paths to the nodes of a cluster."""
    return f"clusterer:{cluster_id}:pathevents"


def prober(machine_id: int) -> str:
    """String with a TTL: token of the process that is the prober ``machine_id``."""
    return f"clusterer:prober:{machine_id}"


def prober_ring(machine_id: int) -> str:
    """Stream of length 1 that gets an entry when the prober ``machine_id`` is asked."""
    return f"clusterer:prober-ring:{machine_id}"


def last_seen(receiver: int, registration: str, cluster_id: int) -> str:
    """Sorted set: machine_id → Redis ms of its last packet."""
    return f"clusterer:last-seen:{receiver}:{registration}:{cluster_id}"


def muted(receiver: int, registration: str, cluster_id: int) -> str:
    """Sorted set: machine_id → Redis ms until which it is muted."""
    return f"clusterer:muted:{receiver}:{registration}:{cluster_id}"


def answer(token: str) -> str:
    """List with a TTL: the answer to the inquiry ``token``."""
    return f"clusterer:answer:{token}"
