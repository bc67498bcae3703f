"""Membership and replication for groups of SIP servers, as OpenSIPS 2.2 does it."""
