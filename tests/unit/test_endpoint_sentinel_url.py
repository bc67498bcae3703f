"""URLs of a Redis that Sentinel watches: their parts, and what is said about a wrong one."""

from __future__ import annotations

import pytest

from clusterer.endpoint import open_client
from clusterer.endpoint.sentinel_url import place_of
from clusterer.errors import SettingsError
from clusterer.settings import Settings


def test_sentinel_url_is_taken_apart() -> None:
    place = place_of(
        "sentinels://u:p%40w@h:1,[::1]:2,i/sip/3"
        "?ssl_ca_certs=/ca.pem&client_name=x&sentinel_username=s&sentinel_password=a%26b"
    )
    tls = "?ssl_ca_certs=%2Fca.pem&username=s&password=a%26b"
    assert place.service == "sip"
    assert place.sentinels == {
        "h:1": f"rediss://h:1{tls}",
        "[::1]:2": f"rediss://[::1]:2{tls}",
        "i:26379": f"rediss://i:26379{tls}",
    }
    assert place.redis_url == ("rediss://u:p%40w@h:1/3?ssl_ca_certs=%2Fca.pem&client_name=x")


def test_sentinel_url_without_options_has_none() -> None:
    place = place_of("sentinel://h/sip")
    assert place.sentinels == {"h:26379": "redis://h:26379"}
    assert place.redis_url == "redis://h:26379"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sentinel://h:1", "must be like sentinel://user:password@host:port,host:port/service"),
        ("sentinel://h:1/", "the service is the name after `sentinel monitor` in sentinel.conf"),
        ("sentinel://h:1/0/sip", "the service is the name after `sentinel monitor`"),
        ("sentinel://h:1/a b", "the service is the name after `sentinel monitor`"),
        ("sentinel:///sip", "with numbers as ports"),
        ("sentinel://h:1,,i/sip", "with numbers as ports"),
        ("sentinel://h:x/sip", "with numbers as ports"),
        ("sentinel://\u2100/sip", "must be like"),
        ("sentinel://h h/sip", "must be like"),
        ("sentinel://[:::]/sip", "has an address in [ ] that is no IPv6 address"),
        ("redis://[:::]/0", "has an address in [ ] that is no IPv6 address"),
        ("redis://\u2100/0", "must be like redis://"),
        ("redis://h/sip", "has a database after host and port that is not a whole number"),
        ("redis://h:1/1/2", "has a database after host and port that is not a whole number"),
        ("rediss://h/-1?db=1", "has a database after host and port that is not a whole number"),
        ("sentinel://h:1,i:0/sip", "has a port that is not from 1 to 65535"),
        ("sentinel://h/sip?ssl_ca_certs=/x", "write sentinels:// in place of sentinel:// for TLS"),
        ("sentinel://h/sip?ssl=true", "write sentinels:// in place of sentinel:// for TLS"),
        ("sentinels://h/sip?ssl=true", "sentinels:// means TLS: leave it out"),
        ("sentinel://h/sip?master_name=x", "it is the name behind the hosts"),
        ("redis://h/0?sentinel_password=x", "has an option after the ? that is unknown"),
        ("redis://h:1,i:2/0", "has several hosts: sentinel://host:port,host:port/service"),
        ("redis+cluster://h:1", "names a Redis Cluster, which is not supported: RQ's workers"),
        ("rediss+cluster://h:1", "names a Redis Cluster, which is not supported"),
        ("redis-cluster://h:1,i:2", "names a Redis Cluster, which is not supported"),
        ("http://h", "must begin with redis://, rediss://, unix://, sentinel:// or sentinels://"),
    ],
)
def test_sentinel_url_that_is_wrong_is_refused(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=r"^redis_url ") as caught:
        open_client(Settings(redis_url=url))
    assert message in str(caught.value)
