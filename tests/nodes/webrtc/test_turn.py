"""What coturn lends: datagrams go out and come in by it, and it is noticed when the address is ours no longer."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flowstream.proto.ice import Address
from flowstream.proto.ice_servers import ServerUrl
from flowstream_nodes.webrtc import _turn
from flowstream_nodes.webrtc._turn import TurnError, TurnRelay
from tests.nodes.webrtc.network import STUN, Network, turn_server

pytestmark = [pytest.mark.anyio, pytest.mark.real]

PEERS = ("203.0.113.8", "203.0.113.9")
LOGIN = ("viewer", "a password")


class Place:
    """A network with a relay and two peers on it, which the test is in."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self._server = ExitStack()
        self.came: list[tuple[bytes, Address]] = []

    def start(self) -> None:
        login = ("--lt-cred-mech", "--user=viewer:a password")
        keys = (f"--cert={self.folder / 'cert.pem'}", f"--pkey={self.folder / 'key.pem'}")
        self._server.enter_context(turn_server(self.network, self.folder, *login, *keys))

    def stop(self) -> None:
        self._server.close()

    def relay(self) -> TurnRelay:
        return TurnRelay(lambda data, address: self.came.append((data, address)))

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not condition():
                await anyio.lowlevel.checkpoint()


def make_certificate(folder: Path) -> None:
    """One for the server's address that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(STUN))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Network() as network:
        network.add("internet", *(f"ip addr add {each}/32 dev lo" for each in (STUN, *PEERS)))
        with network.at("internet"):
            make_certificate(tmp_path)
            found = Place(network, tmp_path)
            found.start()
            yield found
            found.stop()


def peer(host: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((host, 0))
    bound.setblocking(False)
    return bound


async def receive(bound: socket.socket) -> tuple[bytes, Address]:
    with anyio.fail_after(10):
        await anyio.wait_readable(bound)
    data, source = bound.recvfrom(2048)
    return data, source[:2]


@pytest.mark.parametrize("text", [f"turn:{STUN}", f"turn:{STUN}?transport=tcp", f"turns:{STUN}"])
async def test_datagrams_go_both_ways(place: Place, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(place.folder / "cert.pem"))
    relay, url = place.relay(), ServerUrl.parse(text)
    await relay.open(url, (STUN, url.port), *LOGIN)
    assert relay.address[0] == STUN
    assert relay.related is not None
    with peer(PEERS[0]) as first, peer(PEERS[1]) as second:
        for bound in (first, second):
            where = bound.getsockname()
            assert relay.sendto(memoryview(b"odd"), where) == 3  # needs padding on a connection
            assert await receive(bound) == (b"odd", relay.address)
            relay.sendto(b"again", where)
            assert await receive(bound) == (b"again", relay.address)
            bound.sendto(b"back", relay.address)
            await place.until(lambda where=where: (b"back", where) in place.came)
        with peer(PEERS[0]) as other:  # another port of a known peer: let in, as ICE needs it
            other.sendto(b"new", relay.address)
            await place.until(lambda: (b"new", other.getsockname()) in place.came)
    await relay.close()
    with anyio.fail_after(10):
        await relay.lost.wait()
    with pytest.raises(BlockingIOError):
        relay.sendto(b"late", (PEERS[0], 9))


async def test_why_nothing_is_lent_is_said_without_the_password(place: Place) -> None:
    url = ServerUrl.parse(f"turn:{STUN}")
    with pytest.raises(TurnError, match=r"^refuses the user name or the credential \(error 401\)$"):
        await place.relay().open(url, (STUN, 3478), "viewer", "a guess")
    with pytest.raises(TurnError, match=r"^cannot be reached: "):
        await place.relay().open(ServerUrl.parse(f"turn:{STUN}:9?transport=tcp"), (STUN, 9), *LOGIN)
    with pytest.raises(TurnError, match=r"^cannot be reached: .*certificate verify failed"):
        await place.relay().open(ServerUrl.parse(f"turns:{STUN}"), (STUN, 5349), *LOGIN)


async def test_a_server_that_forgot_us_is_noticed_with_the_next_peer(place: Place) -> None:
    relay = place.relay()
    await relay.open(ServerUrl.parse(f"turn:{STUN}"), (STUN, 3478), *LOGIN)
    with peer(PEERS[0]) as first:
        relay.sendto(b"x", first.getsockname())
        await receive(first)
        place.stop()
        place.start()
        relay.sendto(b"x", (PEERS[1], 9))
        with anyio.fail_after(10):
            await relay.lost.wait()
    await relay.close()


async def test_permissions_are_renewed_before_they_end_and_media_does_not_wait(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _turn.BIND_S < 300, "a permission lasts 5 minutes (RFC 8656 section 9)"
    relay = place.relay()
    await relay.open(ServerUrl.parse(f"turn:{STUN}"), (STUN, 3478), *LOGIN)
    bound: list[Address] = []
    bind = relay._client.channel_bind

    async def channel_bind(number: int, address: Address) -> None:
        bound.append(address)
        await bind(number, address)

    monkeypatch.setattr(relay._client, "channel_bind", channel_bind)
    with peer(PEERS[0]) as first:
        where = first.getsockname()
        relay.sendto(b"0", where)
        await receive(first)
        relay.sendto(b"1", where)
        assert bound == [where]
        (channel,) = relay._client.channel_refresh_at
        relay._client.channel_refresh_at[channel] -= _turn.BIND_S + 1
        for number in (b"2", b"3", b"4"):
            relay.sendto(number, where)
        got = [(await receive(first))[0] for _ in range(4)]
        assert got[:3] == [b"1", b"3", b"4"], "what comes while it is renewed goes out at once"
        assert got[3] == b"2"
        assert bound == [where, where]
        # Nobody has sent to it for a quarter of an hour: the number is somebody else's.
        relay._client.channel_refresh_at[channel] -= _turn.FREE_S + _turn.BIND_S
        relay.sendto(b"5", (PEERS[1], 9))
        assert relay._client.channel_to_peer == {}
        assert relay._client.peer_to_failed_channel == {(PEERS[1], 9): channel}
    await relay.close()


async def test_what_waits_for_a_channel_is_bounded(place: Place) -> None:
    relay = place.relay()
    await relay.open(ServerUrl.parse(f"turn:{STUN}"), (STUN, 3478), *LOGIN)
    for number in range(_turn.MAX_WAITING):
        relay.sendto(b"x", (PEERS[0], 1_000 + number))
    with pytest.raises(BlockingIOError, match="too much waits"):
        relay.sendto(b"x", (PEERS[0], 999))
    await relay.close()
