"""Valid ids and names of protocols."""

from __future__ import annotations

import pytest

from clusterer.errors import InvalidArgument
from clusterer.ids import MAX_ID, PROTO_BIN, require_id, require_protocol


@pytest.mark.parametrize("value", [1, 2, MAX_ID])
def test_id_is_returned(value: int) -> None:
    assert require_id("cluster_id", value) == value


@pytest.mark.parametrize("value", [0, -1, MAX_ID + 1, True, 1.0, "1", None])
def test_wrong_id_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^machine_id must be an integer from 1 to "):
        require_id("machine_id", value)


@pytest.mark.parametrize(
    ("value", "protocol"), [("bin", PROTO_BIN), ("BIN", "bin"), ("udp", "udp")]
)
def test_protocol_is_returned_in_lower_case(value: str, protocol: str) -> None:
    assert require_protocol(value) == protocol


@pytest.mark.parametrize("value", ["", "bin:", "b n", "b*n", "bïn", None, 1, b"bin"])
def test_wrong_protocol_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^protocol must be a name "):
        require_protocol(value)
