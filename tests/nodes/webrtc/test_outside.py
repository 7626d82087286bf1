"""Viewers from outside: through NATs, by a relay, on IPv6 alone, and none at all; with real NATs, servers and players.

The networks are namespaces, the NATs Linux's own, STUN and TURN come from coturn.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from flowstream.proto.ice import Pair
from flowstream.proto.ice_servers import IceServer
from flowstream_nodes.webrtc._gathering import Reach
from tests.clients import FOLDER
from tests.e2e.running import browsing, running, until
from tests.nodes.webrtc.network import (
    CLIENT_IPV6,
    CLIENT_OUTSIDE,
    SERVER,
    SERVER_IPV6,
    SERVER_OUTSIDE,
    STUN,
    Network,
    behind_nats,
    only_ipv6,
    turn_server,
)
from tests.nodes.webrtc.player import LoopbackViewer
from tests.nodes.webrtc.test_players import player

pytestmark = [pytest.mark.anyio, pytest.mark.real]

PORT = 8080
PICTURES = 30
STUN_SERVER = IceServer((f"stun:{STUN}",))
SECRET = "a secret of the relay"


async def play(network: Network, name: str, url: str, *servers: str) -> dict[str, Any]:
    """What a player at the client's place reports."""
    variables = {**os.environ, "NODE_PATH": str(FOLDER), "ICE_SERVERS": " ".join(servers)}
    command = network.command("client", *player(name), f"{url}/whep", str(PICTURES))
    with anyio.fail_after(30):
        done = await anyio.run_process(command, env=variables, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def assert_watched(report: dict[str, Any]) -> None:
    assert report["status"] == 201
    assert report["pictures"] >= PICTURES
    assert report["left"] == 200


@pytest.mark.parametrize("name", ["datachannel", "werift"])
async def test_a_server_and_a_player_behind_nats_find_each_other_by_stun(
    stage_of: Any, tmp_path: Path, name: str
) -> None:
    player(name)
    with (
        behind_nats(server="cone", client="cone") as network,
        turn_server(network, tmp_path, "--stun-only"),
        network.at("server"),
    ):
        async with stage_of(host="0.0.0.0", port=PORT, http="0.0.0.0", reach=Reach((STUN_SERVER,))) as stage:
            stage.tasks.start_soon(stage.play)
            selected: list[Pair] = []
            stage.tasks.start_soon(_note_pair, stage, selected)
            report = await play(network, name, f"http://{SERVER_OUTSIDE}:{PORT}", f"stun:{STUN}:3478")
            assert_watched(report)
            (pair,) = selected
            assert pair.local == (SERVER, PORT)
            assert pair.remote[0] == CLIENT_OUTSIDE


async def _note_pair(stage: Any, selected: list[Pair]) -> None:
    """Where the media goes, once it is known."""
    while not selected:
        # A player may be shown something before it has nominated a pair.
        pairs = [each.sender.pair for each in stage.viewers.sessions.values() if each.connected]
        selected += [pair for pair in pairs if pair is not None]
        await anyio.sleep(0.02)


async def test_a_port_that_the_nat_passes_on_needs_no_server(stage_of: Any) -> None:
    player("werift")
    with behind_nats(server="cone", client="symmetric") as network, network.at("server"):
        network.run("router", f"iptables -t nat -A PREROUTING -i internet -p udp --dport {PORT} -j DNAT --to {SERVER}")
        reach = Reach(public=((SERVER_OUTSIDE, 0),))
        async with stage_of(host="0.0.0.0", port=PORT, http="0.0.0.0", reach=reach) as stage:
            stage.tasks.start_soon(stage.play)
            selected: list[Pair] = []
            stage.tasks.start_soon(_note_pair, stage, selected)
            assert_watched(await play(network, "werift", f"http://{SERVER_OUTSIDE}:{PORT}"))
            (pair,) = selected
            assert (pair.local, pair.remote[0]) == ((SERVER, PORT), CLIENT_OUTSIDE)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_player_without_a_relay_comes_by_ours(stage_of: Any, tmp_path: Path, transport: str) -> None:
    player("werift")
    server = IceServer((f"turn:{STUN}?transport={transport}",), "viewer", "a password")
    with (
        behind_nats(server="symmetric", client="symmetric") as network,
        turn_server(network, tmp_path, "--lt-cred-mech", "--user=viewer:a password"),
        network.at("server"),
    ):
        if transport == "tcp":  # a network that lets out no UDP
            network.run("router", "iptables -I FORWARD -p udp -j DROP")
        async with stage_of(host="0.0.0.0", port=PORT, http="0.0.0.0", reach=Reach((server,))) as stage:
            stage.tasks.start_soon(stage.play)
            selected: list[Pair] = []
            stage.tasks.start_soon(_note_pair, stage, selected)
            assert_watched(
                report := await play(network, "werift", f"http://{SERVER_OUTSIDE}:{PORT}", f"stun:{STUN}:3478")
            )
            assert report["lost"] == 0
            (pair,) = selected
            assert pair.local[0].startswith(f"relay {STUN}")
            assert pair.remote[0] == CLIENT_OUTSIDE
            assert stage.viewers.unsent_packets == 0


RELAYED = f"""
flowstream: 1
serve: {{listen: "0.0.0.0:{PORT}", tls: "off"}}
nodes:
  pattern: {{type: test-pattern, size: 320x180, fps: 30}}
  encode: {{type: hw-encode, from: pattern, codec: h264, bitrate: 500k}}
  out:
    type: webrtc-out
    from: encode
    viewers: {{approval: none}}
    ice_servers: [{{urls: ["turn:{STUN}:3478", "stun:{STUN}:3478"], secret: $(env:TURN_SECRET)}}]
"""


@pytest.mark.alone
def test_through_symmetric_nats_the_page_shows_the_stream_by_a_relay_whose_secret_stays_here(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(RELAYED)
    with ExitStack() as stack:
        network = stack.enter_context(behind_nats(server="symmetric", client="symmetric"))
        log = stack.enter_context(turn_server(network, tmp_path, "--use-auth-secret", f"--static-auth-secret={SECRET}"))
        with network.at("server"):
            run = stack.enter_context(running("graph.yaml", tmp_path, TURN_SECRET=SECRET))
        run.wait_for("page")
        with network.at("client"):
            page = stack.enter_context(browsing())
        page.goto(f"http://{SERVER_OUTSIDE}:{PORT}/out/")
        until("pictures", lambda: page.evaluate("document.querySelector('video').currentTime") > 1)
        report = page.evaluate("window.connections.at(-1).getStats().then((stats) => [...stats.values()])")
        chosen = {each["id"]: each for each in report}
        pairs = [each for each in report if each["type"] == "candidate-pair" and each.get("nominated")]
        (pair,) = [each for each in pairs if each["bytesReceived"]]
        local, remote = chosen[pair["localCandidateId"]], chosen[pair["remoteCandidateId"]]
        assert "relay" in (local["candidateType"], remote["candidateType"]), (local, remote)
        told = page.evaluate("window.connections.at(-1).getConfiguration().iceServers")
        (credential,) = {each["credential"] for each in told}
        assert len(credential) == 28, "the base64 form of a digest"
        said = "".join(run.text)
        assert SECRET not in page.content() + said
        assert credential not in said
    assert "ALLOCATE processed, success" in log.read_text()
    warnings = [line["message"] for line in run.lines if line.get("level") == "warning"]
    assert not [text for text in warnings if "STUN" in text or "relay" in text]


@pytest.mark.parametrize("servers", [(), (IceServer(("stun:[2001:db8:1::7]:9",)),)], ids=["lite", "full"])
async def test_a_network_of_ipv6_alone_will_do(stage_of: Any, servers: tuple[IceServer, ...]) -> None:
    player("datachannel")
    with only_ipv6() as network, network.at("server"):
        async with stage_of(host="::", port=PORT, http="::", reach=Reach(servers)) as stage:
            stage.tasks.start_soon(stage.play)
            selected: list[Pair] = []
            stage.tasks.start_soon(_note_pair, stage, selected)
            assert_watched(await play(network, "datachannel", f"http://[{SERVER_IPV6}]:{PORT}"))
            (pair,) = selected
            assert (pair.local, pair.remote[0]) == ((SERVER_IPV6, PORT), CLIENT_IPV6)


async def test_on_a_machine_of_loopback_alone_servers_out_of_reach_hold_up_nobody(
    stage_of: Any, make_viewer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    servers = (IceServer(("stun:192.0.2.1",)), IceServer(("turn:192.0.2.1",), "viewer", "a password"))
    with Network() as network:
        network.add("server")
        with network.at("server"), caplog.at_level(logging.WARNING):
            async with stage_of(host="0.0.0.0", reach=Reach(servers)) as stage, httpx.AsyncClient() as http:
                viewer: LoopbackViewer = make_viewer()
                with anyio.fail_after(5):
                    answer = await http.post(
                        f"{stage.url}/whep", content=viewer.offer(), headers={"Content-Type": "application/sdp"}
                    )
                    assert answer.status_code == 201
                    assert "a=ice-lite" not in answer.text
                    await viewer.connect(answer.text)
                    stage.tasks.start_soon(stage.play)
                    await viewer.until(lambda: len(viewer.rtp) > 20)
                await viewer.leave()
                viewer.vanish()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, told
    (stun,) = (
        text for text in told if text.startswith("the STUN server stun:192.0.2.1 is no help to viewers from outside")
    )
    assert "this machine is on no network; it is asked again" in stun
    (turn,) = (text for text in told if text.startswith("no relay for viewers from outside"))
    assert "turn:192.0.2.1 cannot be reached: " in turn
    assert "a password" not in turn
