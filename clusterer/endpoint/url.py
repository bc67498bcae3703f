"""The URL of Redis, and what of it messages may show."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from clusterer.settings import Settings


def redis_url(settings: Settings) -> str:
    """Return the URL of Redis: the configured one, else the embedded server's socket."""
    return settings.redis_url or f"unix://{quote(str(settings.redis_socket))}"


def public_url(settings: Settings) -> str:
    """Return the URL of Redis without its password, for messages."""
    url = redis_url(settings)
    parts = urlsplit(url)
    if not parts.password:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
