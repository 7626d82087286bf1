"""The UDP sockets that all viewers share: one for each local address, told apart by ICE username and peer address.

Addresses that TURN servers lend are ports beside them: they carry the same datagrams by another way.
"""

import asyncio
import errno
import functools
import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Final, Protocol, cast

from flowstream.proto import stun
from flowstream.proto.ice import Address, Pair, local_ufrag
from flowstream.proto.ice_agent import asker_of
from flowstream.proto.rtcp import is_report_alone
from flowstream_nodes.webrtc._aside import NOTES_BYTES, split_off, waited_ns
from flowstream_nodes.webrtc._layout import Even, evens

MAX_DATAGRAM: Final = 2048
"""Longest datagram that is read, in bytes."""

MAX_BURST: Final = 64
"""Datagrams read from one socket before everybody else gets a turn."""

MOST_TAKEN: Final = 1024
"""Reports that are fetched for all peers of one address at a time; the rest is left for the next time."""

MAX_SOCKETS: Final = 32
"""Local addresses that are bound at a time."""

BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What is asked of the kernel for each direction; it may give less."""

ANY_IPV4: Final = "0.0.0.0"
WILDCARDS: Final = (ANY_IPV4, "::", "")

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
"""linux/udp.h; Python has no names for them."""

MAX_SEGMENT: Final = 1_400
"""Datagrams above this might not fit the path's MTU, and the kernel cuts nothing up then."""

_SEGMENT: Final = struct.Struct("=H")
_NO_ROOM: Final = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_CANNOT_CUT: Final = (errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE)


class Receiver(Protocol):
    """Who takes the datagrams of one peer."""

    def handle_datagram(self, data: bytes, pair: Pair) -> None:
        """Takes one datagram that came in on ``pair``."""


class Peer(Receiver, Protocol):
    """Who takes all that comes in on a pair."""

    def handle_reports(self, data: bytes, pair: Pair, *, waited_ns: int) -> None:
        """Takes RTCP of nothing but feedback or receiver reports that came in on ``pair`` a while ago."""


class Lent(Protocol):
    """An address that a relay lent, which sends as a socket does."""

    def sendto(self, data: bytes | memoryview, address: Address, /) -> int:
        """Sends one datagram from it; raises OSError if that is lost here."""


class _Port:
    """One bound socket, or what stands for one."""

    def __init__(self, bound: socket.socket, address: Address, *, cuts_up: bool) -> None:
        self.socket = bound
        self.address = address
        self.cuts_up = cuts_up
        self.aside: socket.socket | None = None
        """Where reports come in, if not with all else."""


class UdpMux:
    """Sends and receives for many peers on a few sockets.

    A wildcard host is bound as every address that the machine has, loopback included, so that an answer always leaves
    from the address that the peer sent to; addresses that come later are bound when `candidates` is next asked.

    A loopback host is bound with all of them too, as Firefox tries no other than the one that leads out of the machine.
    Then only what was sent from this machine itself is taken.

    Datagrams from unknown peers are dropped; only a STUN request that names a registered session makes a peer known.

    What peers report of their packets is passed on when it comes, or when `take_reports` is called if it is held.
    """

    def __init__(self, host: str, port: int, *, log: logging.LoggerAdapter[logging.Logger]) -> None:
        """``port`` is preferred on every address; where it is taken, the system chooses one."""
        self._host = host
        self._port = port
        self._log = log
        self._named: list[str] = []
        self._is_local = False
        self._own: frozenset[str] = frozenset()
        self._ports: dict[str, _Port] = {}
        self._lent: set[str] = set()
        self._asking: dict[bytes, Receiver] = {}
        self._sessions: dict[str, Receiver] = {}
        self._peers: dict[Pair, Peer] = {}
        self._is_held = False
        self.unsent_packets = 0

    async def open(self) -> None:
        """Binds; needs a running asyncio loop.

        Raises:
            OSError: not one of the addresses can be bound.
        """
        if _is_address(self._host):
            self._named = [self._host]
        elif self._host not in WILDCARDS:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, 0, type=socket.SOCK_DGRAM)
            self._named = list(dict.fromkeys(str(info[4][0]) for info in found))
        self._is_local = bool(self._named) and all(ipaddress.ip_address(each).is_loopback for each in self._named)
        failure: OSError | None = None
        for host in self._addresses():
            try:
                self._bind(host)
            except OSError as error:
                failure = error
        if not self._ports:
            raise failure or OSError(f"{self._host} has no address to bind")

    def close(self) -> None:
        """Closes every socket."""
        loop = asyncio.get_running_loop()
        for base in list(self._lent):
            self.give_back(base)
        for port in self._ports.values():
            loop.remove_reader(port.socket)
            port.socket.close()
            if port.aside is not None:
                loop.remove_reader(port.aside)
                port.aside.close()
        self._ports.clear()
        self._asking.clear()
        self._sessions.clear()
        self._peers.clear()

    def candidates(self) -> list[Address]:
        """The (host, port) pairs that a peer may try, best first: reachable from afar before loopback, unless that was
        named."""
        present = self._addresses()
        for host in present:
            if host not in self._ports and len(self._ports) < MAX_SOCKETS:
                try:
                    self._bind(host)
                except OSError as error:
                    self._log.warning("viewers cannot come in on %s: %s", host, error)
        return [self._ports[host].address for host in present if host in self._ports]

    @property
    def is_local(self) -> bool:
        """Whether only this machine may watch."""
        return self._is_local

    def lend(self, address: Address, lent: Lent) -> Address:
        """A local end of pairs that stands for an address of a relay; what comes in there is told to `take`."""
        base = (f"relay {address[0]} {address[1]}", address[1])
        self._ports[base[0]] = _Port(cast("socket.socket", lent), base, cuts_up=False)
        self._lent.add(base[0])
        return base

    def give_back(self, base: str) -> None:
        """Undoes `lend`, by the host of what it gave."""
        self._lent.discard(base)
        self._ports.pop(base, None)

    def take(self, data: bytes, pair: Pair) -> None:
        """What came in by a relay."""
        self._dispatch(data, pair)

    def expect(self, tag: bytes, receiver: Receiver) -> None:
        """Answers to what was asked with this tag (`asker_of`) are ``receiver``'s."""
        self._asking[tag] = receiver

    def expect_no_more(self, tag: bytes) -> None:
        """Undoes `expect`."""
        self._asking.pop(tag, None)

    def hold_reports(self, is_held: bool) -> None:
        """Whether reports of peers wait for `take_reports`, where the kernel can tell them apart."""
        if is_held == self._is_held:
            return
        self._is_held = is_held
        for port in self._ports.values():
            self._watch_aside(port)

    def take_reports(self) -> int:
        """Passes the reports on that have come in; gives how many came, whoever sent them."""
        return sum(self._read_aside(port, MOST_TAKEN) for port in list(self._ports.values()))

    def take_reports_before(self, pair: Pair) -> None:
        """Passes those on that may have come in on ``pair`` before what is looked at now."""
        port = self._ports.get(pair.local[0])
        if port is not None:
            self._read_aside(port, MAX_BURST)

    def register(self, ufrag: str, receiver: Receiver) -> None:
        """Peers that name ``ufrag`` as the session they want are ``receiver``'s."""
        self._sessions[ufrag] = receiver

    def claim(self, pair: Pair, receiver: Peer) -> None:
        """All that comes in on ``pair`` is ``receiver``'s from now on."""
        self._peers[pair] = receiver

    def release(self, pair: Pair, receiver: Receiver) -> None:
        """Undoes `claim`, unless somebody else has claimed the pair since."""
        if self._peers.get(pair) is receiver:
            del self._peers[pair]

    def forget(self, ufrags: Sequence[str], pairs: Sequence[Pair], receiver: Receiver) -> None:
        """Undoes every `register` and `claim` of these."""
        for ufrag in ufrags:
            self._sessions.pop(ufrag, None)
        for pair in pairs:
            self.release(pair, receiver)

    def send(self, datagrams: Sequence[bytes], pair: Pair) -> int:
        """Sends datagrams to one peer, in order; gives how many the kernel took.

        Never waits: what does not fit the socket's buffer is lost as it would be on the way, and is sent again when the
        peer asks.
        """
        port = self._ports.get(pair.local[0])
        if port is None:
            return 0
        sendto, remote = port.socket.sendto, pair.remote
        sent = 0
        for data in datagrams:
            try:
                sendto(data, remote)
            except OSError as error:
                # A check of where there is no way to is no sign of a buffer that is too small.
                self.unsent_packets += error.errno in _NO_ROOM
            else:
                sent += 1
        return sent

    def send_run(self, data: memoryview, sizes: Sequence[int], pair: Pair) -> int:
        """Sends datagrams that lie one behind the other in ``data`` to one peer; gives how many the kernel took.

        Runs of equal size, the last of which may be shorter, go in one call where the kernel cuts them up (UDP_SEGMENT,
        Linux). Never waits, as `send`.
        """
        return self.send_evens(data, evens(sizes), pair)

    def send_evens(self, data: memoryview, runs: Sequence[Even], pair: Pair) -> int:
        """As `send_run`, where it is known already which datagrams are of equal size."""
        port = self._ports.get(pair.local[0])
        if port is None:
            return 0
        sent = 0
        for start, stop, size, count in runs:
            if count > 1 and port.cuts_up and size <= MAX_SEGMENT:
                if self._send_some(port, data[start:stop], size, count, pair.remote):
                    sent += count
                    continue
                if port.cuts_up:
                    self.unsent_packets += count
                    continue
                # It turned out that this kernel or interface does not: one by one.
            for begin in range(start, stop, size):
                if self._send_some(port, data[begin : min(begin + size, stop)], size, 1, pair.remote):
                    sent += 1
                else:
                    self.unsent_packets += 1
        return sent

    def _send_some(self, port: _Port, data: memoryview, size: int, count: int, remote: Address) -> bool:
        try:
            if count == 1:
                port.socket.sendto(data, remote)
            else:
                port.socket.sendmsg((data,), _cut_into(size), 0, remote)
        except OSError as error:
            if count > 1 and error.errno in _CANNOT_CUT:
                port.cuts_up = False
            return False
        return True

    def _addresses(self) -> list[str]:
        if self._host in WILDCARDS:
            return _own_addresses(self._host)
        if not self._is_local:
            return self._named
        own = _own_addresses("::")
        self._own = frozenset(own)
        return list(
            dict.fromkeys([*self._named, *(each for each in own if not ipaddress.ip_address(each).is_loopback)])
        )

    def _bind(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind((host, self._port))
            except OSError:
                bound.bind((host, 0))
            port = _Port(bound, bound.getsockname()[:2], cuts_up=sys.platform == "linux")
            asyncio.get_running_loop().add_reader(bound, self._readable, port)
        except BaseException:
            bound.close()
            raise
        self._ports[host] = port
        port.aside = split_off(bound, buffer_bytes=BUFFER_BYTES)
        self._watch_aside(port)

    def _watch_aside(self, port: _Port) -> None:
        if port.aside is None:
            return
        loop = asyncio.get_running_loop()
        if self._is_held:
            loop.remove_reader(port.aside)
        else:
            loop.add_reader(port.aside, self._read_aside, port, MAX_BURST)

    def _readable(self, port: _Port) -> None:
        for _ in range(MAX_BURST):
            try:
                data, source = port.socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error that some systems report here; the socket goes on
                self._log.debug("receiving on %s: %s", port.address, error)
                return
            if data:
                self._dispatch(data, Pair(port.address, source[:2]))

    def _read_aside(self, port: _Port, most: int) -> int:
        aside = port.aside
        if aside is None:
            return 0
        count, is_mixed = 0, False
        while count < most:
            try:
                data, notes, _, source = aside.recvmsg(MAX_DATAGRAM, NOTES_BYTES)
            except BlockingIOError:
                if is_mixed:
                    self._put_together(port, aside)
                break
            except OSError as error:
                self._log.debug("receiving on %s: %s", port.address, error)
                break
            count += 1
            pair = Pair(port.address, source[:2])
            if is_report_alone(data):
                self._pass_on(data, pair, waited_ns(notes))
            else:
                is_mixed = True
                if data:  # a turn of its own, as if it had come where it belongs
                    asyncio.get_running_loop().call_soon(self._dispatch, data, pair)
        return count

    def _put_together(self, port: _Port, aside: socket.socket) -> None:
        """The kernel does not tell reports apart, although it said that it would: all comes in together again."""
        self._log.info("on %s the system does not tell reports of viewers from all else", port.address)
        asyncio.get_running_loop().remove_reader(aside)
        aside.close()
        port.aside = None

    def _is_foreign(self, pair: Pair) -> bool:
        """Whether it comes from another machine, where only this one may watch."""
        return self._is_local and pair.remote[0] not in self._own

    def _pass_on(self, data: bytes, pair: Pair, waited_ns: int) -> None:
        if self._is_foreign(pair):
            return
        peer = self._peers.get(pair)
        if peer is not None:
            peer.handle_reports(data, pair, waited_ns=waited_ns)

    def _dispatch(self, data: bytes, pair: Pair) -> None:
        if self._is_foreign(pair):
            return
        receiver: Receiver | None = self._peers.get(pair)
        if stun.looks_like_stun(data):
            tag = asker_of(data)
            if tag is not None:
                receiver = self._asking.get(tag)
            elif (ufrag := local_ufrag(data)) is not None:
                receiver = self._sessions.get(ufrag)
        if receiver is not None:
            receiver.handle_datagram(data, pair)


@functools.cache
def _cut_into(size: int) -> tuple[tuple[int, int, bytes]]:
    """What tells the kernel to cut up what it is given; there are no more sizes than `MAX_SEGMENT`."""
    return ((SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(size)),)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return host not in WILDCARDS


def _own_addresses(host: str) -> list[str]:
    """This machine's addresses that a wildcard stands for, loopback last; no link-local ones, which need a zone."""
    import ifaddr

    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            address = ipaddress.ip_address(each.ip if isinstance(each.ip, str) else each.ip[0])
            if not address.is_link_local and (address.version == 4 or host != ANY_IPV4):
                found.append(address)
    found.sort(key=lambda address: (address.is_loopback, address.version))
    return list(dict.fromkeys(str(address) for address in found))
