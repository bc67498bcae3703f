"""One `Clusterer` used by several threads from the first moment on."""

from __future__ import annotations

import threading

import pytest

from clusterer import PROTO_BIN, Clusterer, ClustererError, Settings
from tests.support.listening import Recorded, peer, send_until
from tests.support.processes import EVENTUALLY_S


@pytest.mark.parametrize("attempt", range(8))
def test_register_beside_the_start_of_serve_gets_packets(
    redis_url: str, port: int, attempt: int
) -> None:
    cluster, recorded = Clusterer(settings=Settings(redis_url=redis_url, server_id=1)), Recorded()
    thread = threading.Thread(target=cluster.serve)
    thread.start()
    try:
        cluster.register_module("ratelimit", PROTO_BIN, recorded, 0, False, 1)
        assert cluster.listener.ready.wait(EVENTUALLY_S)
        with peer(port) as connection:
            send_until(connection, recorded, 0, 2)
    finally:
        cluster.close()
        thread.join(EVENTUALLY_S)
    assert not thread.is_alive()


def test_serve_called_by_threads_serves_once(redis_url: str, port: int) -> None:
    cluster, refused = Clusterer(settings=Settings(redis_url=redis_url, server_id=1)), []

    def serve() -> None:
        try:
            cluster.serve()
        except ClustererError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert cluster.listener.ready.wait(EVENTUALLY_S)
    cluster.close()
    for thread in threads:
        thread.join(EVENTUALLY_S)
    assert len(refused) == 7
