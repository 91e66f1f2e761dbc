"""What is a credential and what is only about one."""

from __future__ import annotations

from typing import Any

import pytest

from engram.importing.credentials import holds_credential, names_credential


@pytest.mark.parametrize(
    "name",
    [
        "SECRET_ACCESS_KEY",
        "ACCESS_KEY_ID",
        "accessKey",
        "API_KEY",
        "apikey",
        "password",
        "MINIO_PASSWD",
        "authToken",
    ],
)
def test_names_of_credentials(name: str) -> None:
    assert names_credential(name)


@pytest.mark.parametrize(
    "name", ["batch_size", "max_tokens", "key", "tokenizer", "S3_ENDPOINT_URL", "secretary", ""]
)
def test_names_of_other_things(name: str) -> None:
    assert not names_credential(name)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "SECRET_ACCESS_KEY", "value": "x"},
        {"name": "STORE", "value": "https://me:mine@minio.example/bucket"},
        {"name": "ID", "value": "AKIAIOSFODNN7EXAMPLE"},
        {"csi": {"volumeAttributes": {"accessKey": "x"}}},
        ["--secret-key", "x"],
        ["--secret-key=x"],
        "-----BEGIN RSA PRIVATE KEY-----",
        {"deep": [{"deeper": {"password": "x"}}]},
    ],
)
def test_credentials_are_found_wherever_they_are(value: Any) -> None:
    assert holds_credential(value)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "minio", "key": "password"}}},
        {"name": "data", "secret": {"secretName": "minio"}},
        {"name": "SECRET_ACCESS_KEY", "value": ""},
        {"credentialName": "minio"},
        {"name": "url", "value": "https://minio.example/bucket@2"},
        ["--epochs", "3", "--lr=0.1"],
        {"automountServiceAccountToken": False},
        17,
        None,
    ],
)
def test_references_and_plain_settings_are_none(value: Any) -> None:
    assert not holds_credential(value)


def test_long_text_is_judged_at_once() -> None:
    assert not holds_credential("a" * 1_000_000)
    assert not holds_credential("://" + "a:" * 500_000)
    assert not names_credential("Aa" * 200_000 + "A" * 200_000)
