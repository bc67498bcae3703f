"""Messages of OpenSIPS 3.x for tests: generated, and compared with the capture's decoding."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from clusterer.payloads import ProfileCount
from clusterer.payloads.opensips3 import (
    MESSAGES,
    BalancedStatus,
    CacheSet,
    CarrierStatus,
    ContactInserted,
    ContactState,
    DialogCreated,
    DialogDeleted,
    DispatcherState,
    GatewayStatus,
    Match,
    Message3,
    PipeCounters,
    PipeRecord,
    ProfileCounts,
    RecordInserted,
    RelayedPipeCounters,
    Sync,
)
from clusterer.payloads.opensips3.message import FlatMessage3

FLAT = [cls for cls in MESSAGES.values() if issubclass(cls, FlatMessage3)]

NAMES = {
    "algo": "algorithm",
    "attr": "attributes",
    "callee_adv_contact": "callee_advertised_contact",
    "callee_gen_cseq": "callee_generated_cseq",
    "callee_in_sdp": "callee_sdp_in",
    "callee_out_sdp": "callee_sdp_out",
    "callee_routes": "callee_route_set",
    "callee_sock": "callee_socket",
    "caller_adv_contact": "caller_advertised_contact",
    "caller_gen_cseq": "caller_generated_cseq",
    "caller_in_sdp": "caller_sdp_in",
    "caller_out_sdp": "caller_sdp_out",
    "caller_routes": "caller_route_set",
    "caller_sock": "caller_socket",
    "callid": "call_id",
    "cflags": "branch_flags",
    "cmd": "command",
    "h_id": "dialog_id",
    "kv": "kv_store",
    "mangled_from": "callee_leg_from_uri",
    "mangled_to": "callee_leg_to_uri",
    "mod_flags": "module_flags",
    "msg": "message",
    "next_clabel": "next_contact_label",
    "on_answer": "on_answer_route",
    "on_hangup": "on_hangup_route",
    "on_timeout": "on_timeout_route",
    "params": "parameters",
    "pipe": "name",
    "req_like": "request",
    "sock": "socket",
    "src_cluster": "source_cluster",
    "src_tag": "other_tag",
    "start_ts": "start",
    "vars": "variables",
}
"""Name in the captures' decoding → name of the field."""

_HEAD = {"cap", "type", "ver", "trailer", "vtype", "is_contact", "has_value"}


def as_shown(module: str, decoded: dict[str, Any]) -> dict[str, Any]:
    """Return what `shown` must return for a frame with the capture's decoding."""
    shown = {NAMES.get(k, k): v for k, v in decoded.items() if k not in _HEAD}
    if module == "dialog-prof-repl":
        return {"counts": [_count(**profile) for profile in shown["profiles"]]}
    if "pipes" in shown:
        shown["pipes"] = [{NAMES.get(k, k): v for k, v in p.items()} for p in shown["pipes"]]
    if "chunks" in shown:
        shown["chunks"] = [_chunk(chunk) for chunk in shown["chunks"]]
    if module == "clusterer-extra":
        del shown["name"]
    return shown


def _count(profile: str, has_value: int, count: int, value: str | None = None) -> dict[str, Any]:
    return {"profile": profile, "value": value, "calls": count}


def _chunk(decoded: dict[str, Any]) -> dict[str, Any]:
    message: dict[object, type[Message3]] = {0: RecordInserted, 1: ContactInserted}
    of = message.get(decoded.get("is_contact"), DialogCreated)
    return {"message": of.NAME, **as_shown("", decoded)}


INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
BYTES = st.binary(max_size=40)
_NAMES = BYTES.filter(lambda name: not name.endswith(b"/b"))
_MATCH = st.builds(Match, st.integers(-1, 1), st.just(())) | st.builds(
    Match, st.just(2), st.lists(BYTES, max_size=3).map(tuple)
)
_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "bytes": BYTES,
    "int": INTS,
    "bytes | int | None": BYTES | INTS | st.none(),
    "tuple[bytes, ...]": st.lists(BYTES, max_size=4).map(tuple),
}


@st.composite
def flat(draw: st.DrawFn, cls: type[FlatMessage3], version: int | None = None) -> FlatMessage3:
    """Draw a message of ``cls``, of any version unless one is given."""
    chosen = draw(st.sampled_from(cls.VERSIONS)) if version is None else version
    by_version: dict[str, st.SearchStrategy[Any]] = {
        "options_ping_interval": INTS if chosen >= 5 else st.none(),
        "reinvite_ping_interval": INTS if chosen >= 5 else st.none(),
        "branch_flags": BYTES if chosen >= 4 else INTS,
        "match": _MATCH if chosen >= 3 else st.none(),
        "chunk_count": INTS if chosen >= 3 else st.none(),
    }
    if not issubclass(cls, ContactState):
        by_version["kv_store"] = BYTES if chosen >= 5 else st.none()
    if cls is DialogDeleted:
        by_version["dialog_id"] = INTS if chosen >= 4 else st.none()
    if issubclass(cls, ContactState):
        by_version |= dict.fromkeys(("contact_id", "expires", "last_modified"), LONGS)
    values = {
        field.name: draw(
            by_version[field.name] if field.name in by_version else _KINDS[str(field.type)]
        )
        for field in fields(cls)
        if field.name != "version"
    }
    return cls(**values, version=chosen)


def _pipes(flags: st.SearchStrategy[int | None]) -> st.SearchStrategy[tuple[PipeRecord, ...]]:
    pipe = st.builds(PipeRecord, _NAMES, st.integers(0, 5), INTS, INTS, flags)
    return st.lists(pipe, max_size=4).map(tuple)


_CHUNKS: dict[str, tuple[tuple[int, ...], tuple[type[FlatMessage3], ...]]] = {
    "dialog-dlg-repl": ((3, 4, 5), (DialogCreated,)),
    "usrloc-contact-repl": ((2, 3, 4, 5), (RecordInserted, ContactInserted)),
    "cachedb-local-repl": ((1,), (CacheSet,)),
    "dispatcher-status-repl": ((1,), (DispatcherState,)),
    "drouting-status-repl": ((1,), (GatewayStatus, CarrierStatus)),
    "load_balancer-status-repl": ((1,), (BalancedStatus,)),
    "presence": ((1,), ()),
}
"""By capability: versions of its data, and classes of its chunks; none: bytes."""


@st.composite
def _sync(draw: st.DrawFn) -> Sync:
    capability = draw(st.sampled_from(sorted(_CHUNKS)))
    known, classes = _CHUNKS[capability]
    version = draw(st.sampled_from(known))
    chunk: st.SearchStrategy[FlatMessage3 | bytes] = (
        st.one_of(*(flat(cls, version) for cls in classes)) if classes else BYTES
    )
    chunks = draw(st.lists(chunk, max_size=3).map(tuple))
    return Sync(capability.encode(), version, chunks, version=draw(st.sampled_from((2, 3))))


MESSAGE: st.SearchStrategy[Message3] = st.one_of(
    *(flat(cls) for cls in FLAT),
    st.builds(PipeCounters, _pipes(INTS)),
    st.builds(RelayedPipeCounters, INTS, _pipes(INTS)),
    st.builds(
        ProfileCounts,
        st.lists(st.builds(ProfileCount, BYTES, st.none() | BYTES, st.integers(0, 2**31 - 1))).map(
            tuple
        ),
        version=st.sampled_from(ProfileCounts.VERSIONS),
    ),
    _sync(),
)
"""Any message that a node may send, but `BridgedPipeCounters`, which is only received."""
