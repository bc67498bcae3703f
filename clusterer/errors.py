"""Every error this project raises, under one root, named after the party at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ClustererError(Exception):
    """Root of all errors raised on purpose by this project."""


class InvalidArgument(ClustererError, ValueError):
    """The caller passed something that cannot be right; nothing was done."""


class UnknownCluster(InvalidArgument):
    """No node of this cluster and protocol is provisioned."""


class UnknownNode(InvalidArgument):
    """The cluster exists, the machine_id in it does not (or is the caller's own row)."""


class ChangedMeanwhile(InvalidArgument):
    """Another operator changed the object since the caller looked at it; nothing was done."""


class WireError(ClustererError):
    """A peer sent bytes that are not BIN, or fields that are not what its message says.

    Raised by the frame decoder it condemns the connection; raised while reading fields it
    condemns that one packet.
    """


class FrameTooLarge(InvalidArgument):
    """A packet that would not fit into one BIN frame (65,535 bytes)."""


class PeerUnreachable(ClustererError):
    """A node's BIN address did not accept a connection, or made no progress, in time."""


class StateUnavailable(ClustererError):
    """Redis cannot be reached, or did not answer in time.

    ``accepted``: raised by `send_many`, how many of its packets, from the first on, are in the log
    for certain. The sub-batch that follows may be there too if it was only Redis's answer that was
    lost; what comes behind that one is not.
    """

    accepted = 0
    enqueue = False
    """Whether a delivery job must be enqueued all the same: Redis has packets and no worker has
    them."""


class BufferFull(ClustererError):
    """`post` took no packet: as many bytes as ``post_buffer`` allows wait for Redis."""


class NewerFormat(StateUnavailable):
    """Redis has keys of a newer version of this program: this one must not write there."""


class OlderFormat(StateUnavailable):
    """A process of an older version uses Redis: no key is renamed until that process has ended."""


class WrongKey(StateUnavailable):
    """Redis answers, but a key of ours holds another type or value than it has to.

    The message names the key and says what puts it right; to try again before is in vain.
    """


class ProvisioningError(ClustererError):
    """The provisioning database or its table is missing, unreachable or not what it must be."""


class DatabaseUnavailable(ProvisioningError):
    """The provisioning database cannot be reached, or refuses what we asked; says why."""

    def __init__(self, message: str, *, advised: bool = False) -> None:
        """``advised``: the message also says what to do."""
        super().__init__(message)
        self.advised = advised


class SettingsError(ClustererError):
    """A setting is unknown or has a value that cannot be used; names the setting and its origin."""


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, the error that it was raised from or during, and so on, each once."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        yield one
        seen.append(one)
        original = getattr(one, "original_exception", None)  # PyMySQL's way to name a cause
        one = one.__cause__ or original or one.__context__


@contextmanager
def file_errors(what: str, path: object) -> Iterator[None]:
    """Raise `ClustererError`, "cannot ``what`` ``path``", for an error of the file ``path``."""
    try:
        yield
    except OSError as error:
        raise ClustererError(f"cannot {what} {path}: {error.strerror or error}") from error
