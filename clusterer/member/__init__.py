"""An instance as a member of clusters of OpenSIPS 3.x nodes: its links to the other nodes.

Theory of operation. A node of such a cluster holds another one to be up while the other answers its
pings. The answers, and all that nodes say of their links, are control packets. They go from the
listener to the members, and from the members out on connections of their own: never through the log
in Redis, so an instance stays in its clusters while Redis is away. What a member says, and when, is
decided by `clusterer.topology`; this package has the connections, the clock, and the copy in Redis
of what each member sees. Everything but that copy runs in the listener's event loop.
"""

from clusterer.member.members import Members

__all__ = ["Members"]
