"""The certificate is verified as workers verify it: by OpenSSL, strictly, for one name."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from engram.spec.names import tls_name
from engram_operator.manifests import credentials
from engram_operator.model import Credentials

NAMESPACE, NAME = "n" * 63, "j" * 40


@pytest.fixture(scope="module")
def made() -> Credentials:
    return credentials.generate(NAMESPACE, NAME)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Carry a TLS handshake out in memory."""
    ours, theirs = (ssl.MemoryBIO(), ssl.MemoryBIO()), (ssl.MemoryBIO(), ssl.MemoryBIO())
    sides = [
        client.wrap_bio(theirs[0], ours[0], server_hostname=name),
        server.wrap_bio(ours[0], theirs[0], server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


def contexts(made: Credentials, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    (folder / "tls.crt").write_text(made.certificate)
    (folder / "tls.key").write_text(made.private_key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    client = ssl.create_default_context(cadata=made.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    return server, client


def test_openssl_verifies_it_strictly(made: Credentials, tmp_path: Path) -> None:
    handshake(*contexts(made, tmp_path), tls_name(NAMESPACE, NAME))


def test_it_is_good_for_no_other_name(made: Credentials, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(*contexts(made, tmp_path), tls_name(NAMESPACE, "other"))


def test_another_jobs_authority_does_not_vouch_for_it(made: Credentials, tmp_path: Path) -> None:
    server, _ = contexts(made, tmp_path)
    _, client = contexts(credentials.generate(NAMESPACE, NAME), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, tls_name(NAMESPACE, NAME))


def test_it_lasts_ten_years_and_bears_a_slow_clock(made: Credentials) -> None:
    now = datetime.now(UTC)
    for text in (made.ca, made.certificate):
        certificate = x509.load_pem_x509_certificate(text.encode())
        assert certificate.not_valid_before_utc < now - timedelta(hours=12)
        assert certificate.not_valid_after_utc > now + timedelta(days=3650)


def test_the_authority_signs_servers_and_nothing_else(made: Credentials) -> None:
    authority = x509.load_pem_x509_certificate(made.ca.encode())
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    server = x509.load_pem_x509_certificate(made.certificate.encode())
    assert server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


def test_every_job_gets_a_key_of_its_own(made: Credentials) -> None:
    other = credentials.generate(NAMESPACE, NAME)
    assert len(bytes.fromhex(made.key)) == 32
    assert made.key != other.key
    assert made.private_key != other.private_key
    assert Credentials.from_data(made.data()) == made
