from __future__ import annotations

import hashlib
import hmac

from engram.federation.tokens import authenticator
from engram.spec.tokens import worker_token


def test_a_token_is_the_hmac_that_the_operator_writes_into_the_secret() -> None:
    assert (
        worker_token(b"key", "uid", "trainworker-edge-0")
        == hmac.new(b"key", b"uid/trainworker-edge-0", hashlib.sha256).hexdigest()
    )


def test_a_worker_is_known_by_its_own_token_only() -> None:
    authenticate = authenticator(b"key", "uid")
    token = worker_token(b"key", "uid", "a")
    assert authenticate("a", token)
    assert not authenticate("b", token)
    assert not authenticate("a", "")
    assert not authenticate("a", token[:-1])
    assert not authenticate("a", "tökèn")
    assert not authenticator(b"key", "other")("a", token)
    assert not authenticator(b"other", "uid")("a", token)
