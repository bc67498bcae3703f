"""The type of each key, and the remedy for a wrong type."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from clusterer.jobs import keys as job_keys
from clusterer.membership.columns import StateColumns
from clusterer.store import keys
from clusterer.store.key_types import NAMES, expected_type, remedy

_ARGUMENTS = {"protocol": "bin", "queue": "q:1", "registration": "m#2"}
_OF_ANY_TYPE = ("moved_aside",)


def _all_keys(module: ModuleType) -> list[str]:
    """Return one key of each kind that ``module`` names."""
    texts = (value for value in vars(module).values() if isinstance(value, str))
    made = [text for text in texts if text.startswith("clusterer:")]
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("_") or name in _OF_ANY_TYPE:
            continue
        names = inspect.signature(function).parameters
        made.append(function(*(_ARGUMENTS.get(name, 7) for name in names)))
    return made


@pytest.mark.parametrize("key", [*_all_keys(keys), *_all_keys(job_keys)])
def test_expected_type_of_every_key_is_known(key: str) -> None:
    assert expected_type(key) in NAMES


@pytest.mark.parametrize(
    "key", ["clusterer", "clusterer:other", "rq:workers", "clusterer:x:events"]
)
def test_expected_type_of_a_foreign_key_is_empty(key: str) -> None:
    assert expected_type(key) == ""


def test_remedy_for_keys_from_the_table_is_a_reload() -> None:
    assert remedy(keys.node(1, "bin", 2)) == "run `clusterer reload`"
    assert "redis-cli DEL clusterer:notify:1" in remedy(keys.notices(1))


@pytest.mark.parametrize("text", ["", "1 2", "7 0 0", "1 0 x", "1  0 0", "01 0 0", "1 0 0 0"])
def test_state_columns_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        StateColumns.parse(text)
