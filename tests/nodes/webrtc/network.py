"""Networks for tests, of network namespaces: a server and a client, the internet between them, NATs in front of both.

A thread enters one with `Network.at`; what it starts or opens in there stays there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import pytest

NatKind = Literal["cone", "symmetric"]

STUN: Final = "203.0.113.1"
SERVER: Final = "192.168.1.2"
SERVER_OUTSIDE: Final = "203.0.113.2"
CLIENT: Final = "10.0.0.7"
CLIENT_OUTSIDE: Final = "198.51.100.2"
SERVER_IPV6, CLIENT_IPV6 = "2001:db8:1::2", "2001:db8:1::7"

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET of linux/sched.h


class Network:
    """Namespaces that end with the block; the test is skipped where they, or a program of theirs, cannot be had."""

    def __init__(self) -> None:
        self._prefix = f"fs{os.getpid()}-"
        self._names: list[str] = []

    def __enter__(self) -> Network:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("networks of one's own need root on Linux, and iproute2")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", self._prefix + name], check=True)

    def add(self, name: str, *commands: str) -> None:
        """A namespace with loopback; the commands are run in it, one word after the other."""
        subprocess.run(["ip", "netns", "add", self._prefix + name], check=True)
        self._names.append(name)
        self.run(name, "ip link set lo up", *commands)

    def run(self, name: str, *commands: str) -> None:
        """Runs commands in a namespace."""
        for command in commands:
            done = subprocess.run(self.command(name, *command.split()), capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stderr}"

    def command(self, name: str, *words: str) -> list[str]:
        """A command that runs in a namespace."""
        return ["ip", "netns", "exec", self._prefix + name, *words]

    def join(self, left: str, left_address: str, right: str, right_address: str) -> None:
        """A cable between two of them; each end is named after the other one."""
        subprocess.run(
            ["ip", "link", "add", right, "netns", self._prefix + left, "type", "veth",
             "peer", "name", left, "netns", self._prefix + right],
            check=True,
        )  # fmt: skip
        for here, there, address in ((left, right, left_address), (right, left, right_address)):
            self.run(here, f"ip addr add {address} dev {there} nodad", f"ip link set {there} up")

    @contextlib.contextmanager
    def at(self, name: str) -> Iterator[None]:
        """What this thread opens and starts within the block is in that namespace; all tasks of it, where one waits."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{self._prefix}{name}", "rb") as there:
            if libc.setns(there.fileno(), _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                if libc.setns(before.fileno(), _NEW_NETWORK) != 0:
                    raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def behind_nats(server: NatKind, client: NatKind) -> Iterator[Network]:
    """``server`` and ``client``, each behind a NAT that lets in what answers and nothing else; ``internet`` between.

    A symmetric one has another port for each destination; the other kind keeps the port. HTTP of the server is passed
    on by its NAT, as somebody does who lets others watch.
    """
    if shutil.which("iptables") is None:
        pytest.skip("NATs need iptables")
    with Network() as network:
        for name in ("internet", "router", "home", "server", "client"):
            network.add(name)
        network.join("internet", f"{STUN}/24", "router", f"{SERVER_OUTSIDE}/24")
        network.join("internet", "198.51.100.1/24", "home", f"{CLIENT_OUTSIDE}/24")
        network.join("router", "192.168.1.1/24", "server", f"{SERVER}/24")
        network.join("home", "10.0.0.1/24", "client", f"{CLIENT}/24")
        for name, gateway in (
            ("router", STUN), ("home", "198.51.100.1"), ("server", "192.168.1.1"), ("client", "10.0.0.1"),
            # What goes to private addresses gets lost somewhere out there, as it does on the internet.
            ("internet", CLIENT_OUTSIDE),
        ):  # fmt: skip
            network.run(name, f"ip route add default via {gateway}")
        for name in ("internet", "router", "home"):
            with network.at(name):
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for name, kind in (("router", server), ("home", client)):
            network.run(
                name,
                f"iptables -t nat -A POSTROUTING -o internet -j MASQUERADE{' --random-fully' * (kind == 'symmetric')}",
                "iptables -A FORWARD -i internet -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j ACCEPT",
                "iptables -A FORWARD -i internet -j DROP",
                "iptables -A INPUT -i internet -j DROP",
            )
        network.run("router", f"iptables -t nat -A PREROUTING -i internet -p tcp --dport 8080 -j DNAT --to {SERVER}")
        yield network


@contextlib.contextmanager
def only_ipv6() -> Iterator[Network]:
    """``server`` and ``client`` on a network without IPv4."""
    with Network() as network:
        network.add("server")
        network.add("client")
        network.join("server", f"{SERVER_IPV6}/64", "client", f"{CLIENT_IPV6}/64")
        yield network


@contextlib.contextmanager
def turn_server(network: Network, folder: Path, *login: str) -> Iterator[Path]:
    """A coturn on the internet, at the port of the standard; gives its log."""
    if shutil.which("turnserver") is None:
        pytest.skip("there is no turnserver: apt-get install coturn")
    log = folder / "turn.log"
    command = [
        "turnserver", "-n", f"--listening-ip={STUN}", f"--relay-ip={STUN}", "--realm=example.org", "--verbose",
        "--no-cli", "--no-dtls", "--log-file=stdout", f"--pidfile={folder / 'turn.pid'}",
        f"--userdb={folder / 'turn.db'}", "--fingerprint", *login,
    ]  # fmt: skip
    with network.at("internet"), log.open("w") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while "UDP listener opened on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        yield log
    finally:
        process.terminate()
        process.wait(10)
