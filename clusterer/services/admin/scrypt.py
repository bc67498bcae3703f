"""Hashes passwords and tokens with scrypt, and compares them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading

PASSWORD_COST = 2**15
"""scrypt's N for passwords: 32 MiB and about 0.1 s each."""
TOKEN_COST = 2**10
"""scrypt's N for tokens: they have 256 random bits, so that no list of guesses finds them."""
_MOST_COST = 2**17
_BLOCK, _PARALLEL = 8, 1
_SALT_BYTES, _HASH_BYTES = 16, 32

_beside_each_other = threading.BoundedSemaphore(2)
"""Bounds the memory and the CPU of many logins at once."""


def hashed(secret: str, cost: int = PASSWORD_COST) -> str:
    """Return the hash of a secret, as text: ``scrypt N r p SALT HASH``."""
    salt = secrets.token_bytes(_SALT_BYTES)
    found = _scrypt(secret, salt, cost, _BLOCK, _PARALLEL)
    return f"scrypt {cost} {_BLOCK} {_PARALLEL} {salt.hex()} {found.hex()}"


def matches(secret: str, text: str) -> bool:
    """Whether ``text`` is the hash of ``secret``; a text that is no hash matches no secret."""
    try:
        kind, cost, block, parallel, salt, expected = text.split(" ")
        if kind != "scrypt" or int(cost) > _MOST_COST or int(block) > _BLOCK or int(parallel) > 1:
            return False
        found = _scrypt(secret, bytes.fromhex(salt), int(cost), int(block), int(parallel))
        return hmac.compare_digest(found, bytes.fromhex(expected))
    except ValueError:
        return False


def _scrypt(secret: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    with _beside_each_other:
        return hashlib.scrypt(
            secret.encode("utf-8", "surrogatepass"),
            salt=salt,
            n=cost,
            r=block,
            p=parallel,
            maxmem=256 * cost * block,
            dklen=_HASH_BYTES,
        )
