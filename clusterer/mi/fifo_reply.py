"""Replies as OpenSIPS 2.2's mi_fifo words them: results to bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clusterer.mi.commands import (
    FifoError,
    Listed,
    ListedNode,
    MiError,
    Names,
    Result,
)

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


def encode(outcome: Result | MiError) -> bytes:
    """Return the reply, byte for byte as 2.2 writes it."""
    if isinstance(outcome, FifoError):
        return _line(f"{outcome.code} {outcome.reason}")
    if isinstance(outcome, MiError):
        return _line(f"{outcome.code} {outcome.reason}") + b"\n"
    return b"".join([_line("200 OK"), *_lines(outcome), b"\n"])


def _lines(result: Result) -> Iterator[bytes]:
    if isinstance(result, Listed):
        for cluster in result.clusters:
            yield _line(f"Cluster:: {cluster.cluster_id}")
            for node in cluster.nodes:
                yield b"\t" + _line(_server(node))
    elif isinstance(result, Names):
        # A name with a colon cannot be asked for in 2.2's requests.
        yield from (_line(name) for name in result.names if ":" not in name)


def _server(node: ListedNode) -> str:
    return (
        f"Server:: {node.node_id} DB_ID={node.db_id} URL={node.url} State={node.state} "
        f"Last_failed_attempt={node.last_failed_attempt} "
        f"Max_failed_attempts={node.max_failed_attempts} no_tries={node.no_tries} "
        f"Seconds_until_enabling={node.seconds_until_enabling} Description={node.description}"
    )


def _line(text: str) -> bytes:
    """Return one line: what would break it (a line feed in a description) becomes a blank."""
    return _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace") + b"\n"
