"""Makes what a job's processes know each other by: a key K for worker tokens, and a TLS server certificate.

The only part of this package that is not pure: keys are random and certificates are dated. The private key of
the CA signs one certificate and is forgotten, so nothing on the cluster can sign another.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engram.spec.names import tls_name
from engram_operator.model import Credentials

KEY_BYTES = 32
LIFETIME = timedelta(days=3652)
"""Ten years: longer than any run, since a running job's certificate is never renewed."""
CLOCK_SKEW = timedelta(days=1)
"""How far behind an edge device's clock may be."""

_NO_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def generate(namespace: str, name: str) -> Credentials:
    """Return new credentials for the job `namespace/name`.

    The certificate is for `tls_name` alone, which workers verify whatever address they dial, and passes
    OpenSSL's strict verification (the default from Python 3.13 on).
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(name, ca_key)
    server_key = ec.generate_private_key(ec.SECP256R1())
    certificate = _server(tls_name(namespace, name), name, server_key, ca, ca_key)
    return Credentials(
        key=secrets.token_hex(KEY_BYTES),
        ca=_pem(ca),
        certificate=_pem(certificate),
        private_key=server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii"),
    )


def _authority(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return the job's own CA, which may sign end entities only."""
    subject = _subject(f"engram CA {name}")
    return (
        _dated(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USAGE, "key_cert_sign": True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    host: str,
    name: str,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """Return the aggregator's certificate for `host`, which may be longer than a common name."""
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _dated(_subject(name), ca.subject, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USAGE, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _dated(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
