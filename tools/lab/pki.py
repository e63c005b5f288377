"""The certificates of a throw-away cluster: one authority, and what it signs. Elliptic keys, made in milliseconds."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME: Final = dt.timedelta(days=30)
CLOCK_SKEW: Final = dt.timedelta(minutes=5)
SIGNS: Final = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Files: a private key, and its certificate."""

    key: Path
    certificate: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates that live as long as its folder."""

    files: KeyPair
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def sign(self, name: str, *, groups: Sequence[str] = (), addresses: Sequence[str] = ()) -> KeyPair:
        """A certificate for a server at these addresses and for a client of these groups, as NAME.crt and NAME.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = [_host(address) for address in addresses]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(_subject(name, groups), self.certificate.subject, key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(issuer, critical=False)  # without it Python 3.13 refuses the server
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        folder = self.files.key.parent
        return _write(folder, name.replace(":", "-"), key, builder.sign(self.key, hashes.SHA256()))


def make_authority(folder: Path, name: str) -> Authority:
    """A new authority in this folder, as NAME.crt and NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(name, ()), _subject(name, ()), key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(SIGNS, critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return Authority(_write(folder, name, key, certificate), key, certificate)


def make_signing_key(path: Path) -> Path:
    """A private key alone, as service account tokens are signed with; the API server verifies with the same file."""
    return _private(path, ec.generate_private_key(ec.SECP256R1()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + LIFETIME)


def _subject(name: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _write(folder: Path, stem: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> KeyPair:
    path = folder / f"{stem}.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return KeyPair(_private(folder / f"{stem}.key", key), path)


def _private(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path.touch(mode=0o600)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain))
    return path
