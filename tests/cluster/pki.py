"""Certificates and kubeconfigs of a cluster of the tests: one CA, and a certificate for everybody else."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ADMINISTRATORS = "system:masters"
"""Organisation that may do everything."""

_LIFE = timedelta(days=3650)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    @property
    def complete(self) -> bool:
        """Whether both files are there."""
        return self.certificate.is_file() and self.key.is_file()


class Authority:
    """The cluster's CA in `folder`; made when there is none, so that an interrupted start goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")
        if not self.pair.complete:
            self._make_ca()
        self._certificate = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.pair.key} is no EC key: delete the folder {folder}")
        self._key = key

    @property
    def certificate(self) -> Path:
        """The CA's own certificate."""
        return self.pair.certificate

    def issue(
        self,
        name: str,
        user: str,
        *,
        groups: Sequence[str] = (),
        addresses: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> Pair:
        """Return the certificate `name`.crt for `user` in `groups`, good for a client and a server.

        `addresses` and `names` are what a server is reached by. Made anew at each call, except that
        `kubeconfig` and running servers keep what they have read.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [*(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups)]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(x509.Name(subject), self._certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if addresses or names:
            alternatives = [*(x509.IPAddress(ip_address(address)) for address in addresses)]
            builder = builder.add_extension(
                x509.SubjectAlternativeName([*alternatives, *map(x509.DNSName, names)]), critical=False
            )
        return self._write(name, key, builder.sign(self._key, hashes.SHA256()))

    def service_account_keys(self) -> Pair:
        """Return the key that signs service account tokens, with its public half as `certificate`."""
        pair = Pair(self.folder / "sa.pub", self.folder / "sa.key")
        if not pair.complete:
            key = ec.generate_private_key(ec.SECP256R1())
            _private(pair.key, _pem(key))
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            pair.certificate.write_bytes(public)
        return pair

    def kubeconfig(
        self,
        name: str,
        server: str,
        *,
        user: str = "",
        groups: Sequence[str] = (),
        namespace: str = "default",
    ) -> Path:
        """Write `name`.kubeconfig for `user` (default: `name`) at the URL `server`; return its path.

        Certificates are inside, so that the file may be copied, or read within a node.
        """
        pair = self.issue(name, user or name, groups=groups)
        return self.write_kubeconfig(
            name,
            server,
            {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)},
            namespace,
        )

    def write_kubeconfig(
        self, name: str, server: str, user: dict[str, str], namespace: str = "default"
    ) -> Path:
        """Write `name`.kubeconfig with the given credentials, such as `{"token": ...}`; return its path."""
        cluster = {"server": server, "certificate-authority-data": _encoded(self.certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "engram", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [
                {"name": "engram", "context": {"cluster": "engram", "user": name, "namespace": namespace}}
            ],
            "current-context": "engram",
        }
        path = self.folder / f"{name}.kubeconfig"
        _private(path, json.dumps(content, indent=2).encode())  # JSON is YAML
        return path

    def _make_ca(self) -> None:
        """Make the CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engram-tests")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        self._write("ca", key, builder.sign(key, hashes.SHA256()))

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Pair:
        """Write both files."""
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        _private(pair.key, _pem(key))
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """Return what every certificate has; a day of the past forgives clocks that differ."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_bytes(content)


def _encoded(path: Path) -> str:
    """Return a file in base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")
