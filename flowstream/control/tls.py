"""TLS of the address where a graph is served: a certificate of the owner's, or one that is made and kept."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import secrets
import socket
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowstream.control.door import ServeError, reachable_addresses
from flowstream.control.state import private_folder
from flowstream.errors import FlowstreamError
from flowstream.graph.plan import CertificateFiles, Serve
from flowstream.proto.hosts import is_wildcard

VALID_DAYS = 365
"""How long a certificate that is made is valid; some clients take none that is valid for more than 398 days."""

RENEW_DAYS = 30
"""How long before its end it is made anew."""

BACKDATE_MINUTES = 60
"""How far the clocks of viewers may be behind."""

CERTIFICATE_NAME, KEY_NAME = "certificate.pem", "certificate-key.pem"


class ServerCertificate:
    """A certificate in use. ``context`` is for the server; what ``refresh`` takes in counts for connections after it.

    ``fingerprint`` is the SHA-256 of the certificate as browsers show it, ``AB:CD:...``; ``ends`` when it ends.
    Blocking.
    """

    def __init__(self, serve: Serve, folder: Path | None) -> None:
        """``folder`` is where a certificate that is made is kept; None makes one for this time alone.

        Raises ServeError when there is none that can be used.
        """
        self._serve = serve
        self._folder = folder
        self._read: tuple[bytes, bytes] | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.fingerprint = ""
        self.ends = datetime.max.replace(tzinfo=UTC)
        self.refresh(serve)

    @property
    def is_made(self) -> bool:
        """Whether nobody vouches for it, so that browsers warn."""
        return self._serve.tls == "auto"

    def refresh(self, serve: Serve) -> bool:
        """Takes the certificate as it is now; one that is made is renewed before it ends. Whether it is another.

        Raises ServeError when it cannot be used; the one before stays in use.
        """
        self._serve, before = serve, self._serve
        try:
            cert, key = self._made(serve) if serve.tls == "auto" else _files(serve)
            if (cert, key) == self._read:
                return False
            found = _first(cert)
            _load(self.context, cert, key)
        except BaseException:
            self._serve = before
            raise
        self._read = cert, key
        digest = hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).hexdigest().upper()
        self.fingerprint = ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
        self.ends = found.not_valid_after_utc
        return True

    def _made(self, serve: Serve) -> tuple[bytes, bytes]:
        """The certificate that is kept, or a new one."""
        now = datetime.now(UTC)
        if self._folder is None:
            return self._read if self._read is not None and self.ends - now > _RENEW else make_certificate(serve, now)
        try:
            folder = private_folder(self._folder)
            with contextlib.suppress(OSError, ValueError, FlowstreamError):  # damaged, or there is none: it is replaced
                kept = (folder / CERTIFICATE_NAME).read_bytes(), (folder / KEY_NAME).read_bytes()
                if _first(kept[0]).not_valid_after_utc - now > _RENEW:
                    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *kept)
                    return kept
            cert, key = make_certificate(serve, now)
            _write(folder / KEY_NAME, key)
            _write(folder / CERTIFICATE_NAME, cert)
        except OSError as error:
            raise ServeError(
                f"serve: cannot keep the certificate in {self._folder}: {error.strerror or error}",
                hint="set XDG_STATE_HOME to a folder that can be written, or name files: tls: {cert: FILE, key: FILE}",
            ) from error
        return cert, key


_RENEW = timedelta(days=RENEW_DAYS)


def make_certificate(serve: Serve, now: datetime) -> tuple[bytes, bytes]:
    """A new certificate that vouches for itself, and its key, both PEM.

    It names every address and the host name that viewers may use (RFC 5280 section 4.2.1.6); it can sign no other.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flowstream")])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=BACKDATE_MINUTES))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(serve.host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), encoded


def _names(host: str) -> Sequence[x509.GeneralName]:
    wanted = ["localhost", "127.0.0.1", "::1", host]
    if is_wildcard(host):
        wanted = [*wanted[:3], socket.gethostname(), *reachable_addresses("::")]
    found: list[x509.GeneralName] = []
    for each in dict.fromkeys(wanted):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            with contextlib.suppress(ValueError):  # a host name beyond ASCII
                found.append(x509.DNSName(each))
    return found


def _files(serve: Serve) -> tuple[bytes, bytes]:
    assert isinstance(serve.tls, CertificateFiles)
    found = []
    for name, path in (("cert", serve.tls.cert), ("key", serve.tls.key)):
        try:
            found.append(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else None
            raise ServeError(
                f"serve: tls: {name}: {path} cannot be read: {said or error}",
                hint="name a PEM file that this user may read",
            ) from error
    try:
        _first(found[0])
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), found[0], found[1])
    except ServeError as error:
        raise ServeError(f"serve: tls: {serve.tls.cert}, {serve.tls.key}: {error.message}", hint=error.hint) from error
    return found[0], found[1]


def _first(cert: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(cert)[0]
    except ValueError as error:
        raise ServeError("the certificate is no PEM file", hint="it begins with -----BEGIN CERTIFICATE-----") from error


def _load(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """Gives a context the certificate. Raises ServeError when the key is not its own."""
    with tempfile.TemporaryDirectory(prefix="flowstream-") as folder:  # only files are taken; nobody else may enter
        path = Path(folder) / "both.pem"
        _write(path, key + b"\n" + cert)
        try:
            # Asked for a passphrase, it would wait for somebody to type it.
            context.load_cert_chain(path, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or ""
            if "MISMATCH" in reason:
                raise ServeError("the key is not that of the certificate") from error
            raise ServeError(
                "the key cannot be used", hint="it is a PEM file without passphrase: -----BEGIN PRIVATE KEY-----"
            ) from error


def _write(path: Path, content: bytes) -> None:
    """Puts a file in its place, whole or not at all, for its owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
