"""Names of all Redis keys. docs/redis-keys/ shows each with a redis-cli line."""

from __future__ import annotations

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


def nodes(cluster_id: int, protocol: str) -> str:
    """Set of the machine_ids of a cluster."""
    return f"clusterer:{cluster_id}:{protocol}:nodes"


def node(cluster_id: int, protocol: str, machine_id: int) -> str:
    """Hash of one node."""
    return f"clusterer:{cluster_id}:{protocol}:node:{machine_id}"


def version(cluster_id: int, protocol: str) -> str:
    """Counter that grows with every change in a cluster."""
    return f"clusterer:{cluster_id}:{protocol}:version"


def due(cluster_id: int, protocol: str) -> str:
    """Sorted set: machine_id → Redis ms at which the node must be looked at next."""
    return f"clusterer:{cluster_id}:{protocol}:due"


def dirty(cluster_id: int, protocol: str) -> str:
    """Sorted set: machine_id → version not yet written to the table."""
    return f"clusterer:{cluster_id}:{protocol}:dirty"


def synced(cluster_id: int, protocol: str) -> str:
    """Hash: machine_id → ``state no_tries last_attempt`` as last read from or written to a row.

    While a write is under way, all that the row may hold by our own hand: comma separated.
    """
    return f"clusterer:{cluster_id}:{protocol}:synced"


def events(cluster_id: int) -> str:
    """Capped stream: audit of everything that changed in a cluster."""
    return f"clusterer:{cluster_id}:events"


def history(cluster_id: int, protocol: str, machine_id: int) -> str:
    """Capped stream with a TTL: samples of a node's traffic, see `history`."""
    return f"clusterer:{cluster_id}:{protocol}:history:{machine_id}"


def suspicions(cluster_id: int, protocol: str) -> str:
    """Hash: machine_id → suspicion of the node, see `membership.suspicions`."""
    return f"clusterer:{cluster_id}:{protocol}:suspicions"


def confirmed(cluster_id: int, protocol: str) -> str:
    """Hash: machine_id → ``<ms> <prober or sender>`` of the last ack."""
    return f"clusterer:{cluster_id}:{protocol}:confirmed"


def probers(cluster_id: int, protocol: str) -> str:
    """Sorted set: machine_id of a prober → Redis ms of its last heartbeat."""
    return f"clusterer:{cluster_id}:{protocol}:probers"


def probers_ring(cluster_id: int, protocol: str) -> str:
    """Stream of length 1 that gets an entry when all probers of a cluster are asked."""
    return f"clusterer:{cluster_id}:{protocol}:prober-ring"


def path_events(cluster_id: int) -> str:
    """Capped stream: audit of the paths to the nodes of a cluster."""
    return f"clusterer:{cluster_id}:pathevents"


def paths(sender: int) -> str:
    """Hash: ``cluster/machine/generation`` → path record, see `membership.paths`."""
    return f"clusterer:paths:{sender}"


def prober(machine_id: int) -> str:
    """String with a TTL: token of the process that is the prober ``machine_id``."""
    return f"clusterer:prober:{machine_id}"


def prober_ring(machine_id: int) -> str:
    """Stream of length 1 that gets an entry when the prober ``machine_id`` is asked."""
    return f"clusterer:prober-ring:{machine_id}"


def log(sender: int) -> str:
    """Stream of the packets a sender wants delivered; ids are ``<sequence>-<ms>``."""
    return f"clusterer:log:{sender}"


def counters(sender: int) -> str:
    """Hash: ``sequence`` and, per ``cluster:protocol``, how many packets were ever appended."""
    return f"clusterer:counters:{sender}"


def committed(sender: int) -> str:
    """Hash: ``cluster/machine/generation`` → committed offset."""
    return f"clusterer:committed:{sender}"


def committed_count(sender: int) -> str:
    """Hash: ``cluster/machine/generation`` → the cluster's packet count at the committed offset."""
    return f"clusterer:committed-count:{sender}"


def lease(sender: int) -> str:
    """String with a TTL: token of the worker that delivers this sender's log."""
    return f"clusterer:lease:{sender}"


def closing(sender: int) -> str:
    """Hash: ``cluster/machine/generation`` → ``<expiry ms> <token> <first sequence kept>``.

    The closing guards, there while a connection closes; see ``lua/include/guards.lua``.
    """
    return f"clusterer:closing:{sender}"


def stats(sender: int) -> str:
    """Hash: ``cluster/machine/generation/counter``; see `deliveries`."""
    return f"clusterer:stats:{sender}"


def sums(sender: int) -> str:
    """Hash with a TTL: sums of the traffic of some senders, of which this one is the first."""
    return f"clusterer:sums:{sender}"


def shares(queue: str) -> str:
    """Hash with a TTL: number of a worker → ``<expiry ms> <senders that it has>``."""
    return f"clusterer:shares:{queue}"


def pending(queue: str) -> str:
    """Set of the senders whose log has packets to deliver."""
    return f"clusterer:pending:{queue}"


def waiting(queue: str) -> str:
    """Set of the senders whose log only waits for nodes to come up (replay)."""
    return f"clusterer:waiting:{queue}"


def enqueued(queue: str) -> str:
    """String with a TTL, the enqueued flag: a delivery job is queued and has not started."""
    return f"clusterer:enqueued:{queue}"


def ring(queue: str) -> str:
    """Stream of length 1 that gets an entry when a sender becomes pending."""
    return f"clusterer:ring:{queue}"


def last_seen(receiver: int, registration: str, cluster_id: int) -> str:
    """Sorted set: machine_id → Redis ms of its last packet."""
    return f"clusterer:last-seen:{receiver}:{registration}:{cluster_id}"


def muted(receiver: int, registration: str, cluster_id: int) -> str:
    """Sorted set: machine_id → Redis ms until which it is muted."""
    return f"clusterer:muted:{receiver}:{registration}:{cluster_id}"


def modules(receiver: int) -> str:
    """Hash: what an instance registered, and ``heartbeat``."""
    return f"clusterer:modules:{receiver}"


def notices(receiver: int) -> str:
    """Capped stream of the module timeouts for an instance."""
    return f"clusterer:notify:{receiver}"


def capture(receiver: int) -> str:
    """Capped stream with a TTL: what an instance receives while ``clusterer tail`` runs."""
    return f"clusterer:capture:{receiver}"


def listings(receiver: int) -> str:
    """Hash with a TTL: ``kind:cluster_id`` → number of entries that an instance's observer has."""
    return f"clusterer:listings:{receiver}"


def inquiries(receiver: int) -> str:
    """Capped list with a TTL: inquiries about the entries of an instance's observers."""
    return f"clusterer:inquiries:{receiver}"


def answer(token: str) -> str:
    """List with a TTL: the answer to the inquiry ``token``."""
    return f"clusterer:answer:{token}"
