"""TLS of the address of the viewers: certificates that are made and kept, and those of the owner."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import stat
from contextlib import AsyncExitStack
from datetime import UTC
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import flowstream
from flowstream import Graph, ServeError
from flowstream.control import tls
from flowstream.control.tls import CERTIFICATE_NAME, KEY_NAME, ServerCertificate, make_certificate
from flowstream.graph.plan import CertificateFiles, Serve
from tests.control.running import TICKS, Opened, in_run

MADE = Serve("0.0.0.0", 8443, tls="auto")
SERVED = TICKS + "serve: {listen: '127.0.0.1:0', tls: auto, api: true}\n"


def certificate_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def files_in(folder: Path, name: str = "own", *, days: int = 90) -> CertificateFiles:
    """A certificate and its key in files of the owner's."""
    now = datetime.datetime.now(UTC) - datetime.timedelta(days=tls.VALID_DAYS - days)
    cert, key = make_certificate(MADE, now)
    (folder / f"{name}.pem").write_bytes(cert)
    (folder / f"{name}-key.pem").write_bytes(key)
    return CertificateFiles(str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem"))


def test_a_certificate_that_is_made_names_every_address_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = ServerCertificate(MADE, tmp_path / "state")
    found = certificate_of(tmp_path / "state" / CERTIFICATE_NAME)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"127.0.0.1", "::1"} <= {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days < 398
    digest = hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).hexdigest().upper()
    assert made.fingerprint.replace(":", "") == digest
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / KEY_NAME).stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == sorted([KEY_NAME, CERTIFICATE_NAME])


def test_it_names_the_host_that_the_graph_names() -> None:
    cert, _ = make_certificate(Serve("192.0.2.7", tls="auto"), datetime.datetime.now(UTC))
    names = x509.load_pem_x509_certificate(cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ipaddress.ip_address("192.0.2.7") in names.get_values_for_type(x509.IPAddress)


def test_it_is_kept_until_it_nears_its_end(tmp_path: Path) -> None:
    first = ServerCertificate(MADE, tmp_path)
    assert ServerCertificate(MADE, tmp_path).fingerprint == first.fingerprint
    assert not first.refresh(MADE)
    old = files_in(tmp_path, days=tls.RENEW_DAYS - 1)
    Path(old.cert).replace(tmp_path / CERTIFICATE_NAME)
    Path(old.key).replace(tmp_path / KEY_NAME)
    before = first.fingerprint
    assert first.refresh(MADE)
    assert first.fingerprint != before
    assert ServerCertificate(MADE, tmp_path).fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nnonsense"])
@pytest.mark.parametrize("name", [CERTIFICATE_NAME, KEY_NAME])
def test_one_that_was_damaged_is_made_anew(tmp_path: Path, name: str, damage: bytes) -> None:
    first = ServerCertificate(MADE, tmp_path)
    (tmp_path / name).write_bytes(damage)
    assert ServerCertificate(MADE, tmp_path).fingerprint != first.fingerprint


def test_without_a_folder_it_is_made_for_this_time() -> None:
    made = ServerCertificate(MADE, None)
    assert made.is_made
    assert not made.refresh(MADE)
    assert ServerCertificate(MADE, None).fingerprint != made.fingerprint


def test_a_certificate_of_the_owner_is_taken_in_again_when_it_changes(tmp_path: Path) -> None:
    serve = Serve(tls=files_in(tmp_path))
    used = ServerCertificate(serve, tmp_path)
    before = used.fingerprint
    assert not used.is_made
    assert not used.refresh(serve)
    files_in(tmp_path)
    assert used.refresh(serve)
    assert used.fingerprint != before


def test_one_that_cannot_be_used_leaves_the_one_before(tmp_path: Path) -> None:
    serve = Serve(tls=files_in(tmp_path))
    used = ServerCertificate(serve, tmp_path)
    before = used.fingerprint
    (tmp_path / "own-key.pem").write_bytes(b"")
    with pytest.raises(ServeError):
        used.refresh(serve)
    assert used.fingerprint == before


def test_files_that_do_not_fit_are_named_with_the_reason(tmp_path: Path) -> None:
    own, other = files_in(tmp_path), files_in(tmp_path, "other")

    def refusal(cert: str, key: str) -> str:
        with pytest.raises(ServeError) as refused:
            ServerCertificate(Serve(tls=CertificateFiles(cert, key)), tmp_path)
        return refused.value.message

    missing = str(tmp_path / "none.pem")
    assert refusal(missing, own.key) == f"serve: tls: cert: {missing} cannot be read: No such file or directory"
    assert (
        refusal(own.cert, other.key) == f"serve: tls: {own.cert}, {other.key}: the key is not that of the certificate"
    )
    assert refusal(own.key, own.key).endswith("the certificate is no PEM file")
    locked = tmp_path / "locked.pem"
    protection = serialization.BestAvailableEncryption(b"open sesame")
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )
    )
    assert refusal(own.cert, str(locked)).endswith("the key cannot be used")


# --- a run ----------------------------------------------------------------------------------------------------------


def trusting(path: Path) -> ssl.SSLContext:
    """Trusts this certificate and no other."""
    return ssl.create_default_context(cafile=str(path))


def test_a_run_is_served_over_tls_by_the_certificate_that_it_names(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        assert there.run.mounts.listen is not None
        assert there.run.api_url is not None
        assert there.run.api_url.startswith("https://127.0.0.1:")
        context = await anyio.to_thread.run_sync(trusting, tmp_path / "state" / CERTIFICATE_NAME)
        async with httpx.AsyncClient(verify=context) as client:
            assert (await client.get(f"{there.run.api_url}healthz")).json() == {"alive": True}
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{there.run.api_url}healthz".replace("https:", "http:"))
        told = (await there.get("/status"))["tls"]
        assert there.run.certificate is not None
        assert told["fingerprint"] == there.run.certificate.fingerprint
        assert told["is_made"] is True

    in_run(tmp_path, main, SERVED)


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    made = ServerCertificate(MADE, tmp_path)
    assert made.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_it_cannot_be_put_off_or_on_while_it_is_served(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        there.file.write_text(SERVED.replace("tls: auto", "tls: off"))
        refused = await there.post("/reload", 422)
        assert refused["error"].startswith("serve: TLS cannot be put off while viewers are connected")

    in_run(tmp_path, main, SERVED)


def test_a_handshake_that_nobody_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(there: Opened) -> None:
        assert there.run.mounts.listen is not None
        async with await anyio.connect_tcp(*there.run.mounts.listen) as silent:
            with pytest.raises(anyio.EndOfStream):
                await silent.receive()

    monkeypatch.setattr("flowstream.control.server.HEAD_SECONDS", 0.2)
    in_run(tmp_path, main, SERVED)


def test_handshakes_that_nobody_ends_are_bounded_in_number_and_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 40

    async def main(there: Opened) -> None:
        assert there.run.mounts.listen is not None
        async with AsyncExitStack() as stack:
            silent = [
                await stack.enter_async_context(await anyio.connect_tcp(*there.run.mounts.listen)) for _ in range(begun)
            ]
            for each in silent[: begun - 8]:  # the oldest are given up for the sake of those that come
                with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await each.receive()
            context = await anyio.to_thread.run_sync(trusting, tmp_path / "state" / CERTIFICATE_NAME)
            async with httpx.AsyncClient(verify=context) as client:
                assert (await client.get(f"{there.run.api_url}healthz")).json() == {"alive": True}

    monkeypatch.setattr("flowstream.control.server.HANDSHAKES", 8)
    in_run(tmp_path, main, SERVED)


def test_a_reload_takes_in_other_files(tmp_path: Path) -> None:
    own, other = files_in(tmp_path), files_in(tmp_path, "other")

    def text(files: CertificateFiles) -> str:
        return TICKS + f"serve: {{listen: '127.0.0.1:0', tls: {{cert: {files.cert}, key: {files.key}}}, api: true}}\n"

    async def main(there: Opened) -> None:
        assert there.run.certificate is not None
        before = there.run.certificate.fingerprint
        there.file.write_text(text(other))
        await there.post("/reload")
        assert there.run.certificate.fingerprint != before
        context = await anyio.to_thread.run_sync(trusting, Path(other.cert))
        async with httpx.AsyncClient(verify=context) as client:
            assert (await client.get(f"{there.run.api_url}healthz")).status_code == 200
        there.file.write_text(text(CertificateFiles(other.cert, own.key)))
        refused = await there.post("/reload", 422)
        assert "the key is not that of the certificate" in refused["error"]

    in_run(tmp_path, main, text(own))


def test_a_renewed_certificate_is_taken_in_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_in(tmp_path)

    async def main(there: Opened) -> None:
        assert there.run.certificate is not None
        before = there.run.certificate.fingerprint
        await anyio.to_thread.run_sync(files_in, tmp_path)
        while there.run.certificate.fingerprint == before:
            await anyio.lowlevel.checkpoint()
        while not any(each.name == "certificate" for each in there.run.events.after(0)[1]):
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("flowstream.control.run.RENEWAL_SECONDS", 0.01)
    text = TICKS + f"serve: {{listen: '127.0.0.1:0', tls: {{cert: {files.cert}, key: {files.key}}}}}\n"
    in_run(tmp_path, main, text)


# --- a program ------------------------------------------------------------------------------------------------------


def ticking() -> Graph:
    graph = Graph()
    graph.add("webrtc-out", id="out", from_=graph.add("hw-encode", from_=graph.add("test-pattern", size="160x90"),
                                                      bitrate="100k"))  # fmt: skip
    return graph


def opened(**given: Any) -> tuple[str, ...]:
    with flowstream.open_sync(ticking(), **given) as run:
        return run.links


def test_a_program_says_how_an_open_address_is_protected(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"other machines reach 0\.0\.0\.0"):
        opened(serve="0.0.0.0:0")
    assert all(link.startswith("http://") for link in opened(serve="0.0.0.0:0", tls="off"))
    assert all(link.startswith("https://") for link in opened(serve="0.0.0.0:0", tls="auto"))
    files = files_in(tmp_path)
    assert all(link.startswith("https://") for link in opened(serve="127.0.0.1:0", tls=(files.cert, files.key)))
    with pytest.raises(ValueError, match="tls= takes 'auto', 'off' or the paths"):
        opened(tls="maybe")
