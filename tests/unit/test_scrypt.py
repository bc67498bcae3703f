"""Hashes of passwords and tokens."""

from __future__ import annotations

import pytest

from clusterer.services.admin.console_users import PASSWORD_COST, TOKEN_COST, hashed, matches


def test_scrypt_hash_matches_its_secret_alone() -> None:
    text = hashed("secret \ud800 €", TOKEN_COST)
    assert matches("secret \ud800 €", text)
    assert not matches("secret", text)
    assert not matches("", text)


def test_scrypt_hashes_of_one_secret_differ() -> None:
    assert hashed("secret", TOKEN_COST) != hashed("secret", TOKEN_COST)


def test_scrypt_password_hash_names_its_cost() -> None:
    text = hashed("secret")
    assert text.startswith(f"scrypt {PASSWORD_COST} 8 1 ")
    assert matches("secret", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scrypt",
        "scrypt 1024 8 1 zz zz",
        "scrypt 1024 8 1 00 ",
        "scrypt 1000 8 1 00 00",
        "scrypt 1099511627776 8 1 00 00",
        "scrypt 1024 999999 1 00 00",
        "argon2 1024 8 1 00 00",
    ],
)
def test_scrypt_text_that_is_no_hash_matches_nothing(text: str) -> None:
    assert not matches("", text)
    assert not matches("secret", text)
