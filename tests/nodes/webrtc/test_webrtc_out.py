"""The node: its settings, what it mounts and holds, and what it says when it cannot run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from flowstream import EncodedCaps, EncodedPacket, NegotiationError, Record, ResourceBusy, ViewerReports
from flowstream.testing.harness import Harness
from flowstream_nodes.webrtc.webrtc_out import REPORTS_NS, WebrtcOut, WebrtcOutConfig

LOOPBACK = ("127.0.0.1", 0)
KEYFRAME = EncodedPacket(EncodedCaps(codec="h264"), b"\0\0\1\x67\x42\xc0\x1f\0\0\1\x65abc", time_ns=0)
SOUND = EncodedPacket(EncodedCaps(codec="opus"), b"opus", time_ns=0)


def harness(config: Mapping[str, Any] | None = None, **options: Any) -> Harness[WebrtcOutConfig]:
    options.setdefault("listen", LOOPBACK)
    return Harness(WebrtcOut, config or {}, name="out", **options)


def get(node: Harness[WebrtcOutConfig], path: str) -> httpx.Response:
    """Asks the application that was mounted last."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(node.mounts[-1].app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as http:
            return await http.get(path)

    return node.loop.run_until_complete(ask())


def test_it_serves_a_page_and_takes_what_comes_without_viewers() -> None:
    with harness(label="Desk") as node:
        node.settle()
        assert node.ctx.is_ready
        (mount,) = node.mounts
        assert (mount.path, mount.page) == ("/out/", True)
        assert {name for name, fact in node.facts.items() if fact is not None} == {"viewers"}
        assert node.facts["viewers"] == 0
        node.push(KEYFRAME, "video")
        node.push(SOUND, "audio")
        assert get(node, "/").status_code == 200
        assert node.finish() == []
        assert node.mounts == []


def test_it_tells_who_watches_also_while_no_picture_comes() -> None:
    with harness() as node:
        node.settle()
        node.advance(REPORTS_NS)
        node.advance(REPORTS_NS)
        assert [each.value for each in node.payloads()] == 3 * [ViewerReports("out", ())]
        node.finish()
        node.advance(REPORTS_NS)
        assert len(node.payloads()) == 3
    with harness(connected={"video"}) as node:
        node.settle()
        node.advance(REPORTS_NS)
        assert node.payloads() == []


def test_the_title_is_the_label_until_it_is_set_and_changes_in_place() -> None:
    with harness(label="Desk", connected={"video"}) as node:
        node.settle()
        about = json.loads(get(node, "/about").text)
        assert about.pop("now") == node.ctx.wallclock_ns() // 1_000_000
        assert about == {"title": "Desk", "video": True, "audio": False}
        node.reconfigure(title="Desk of Ada")
        assert json.loads(get(node, "/about").text)["title"] == "Desk of Ada"


def test_all_settings_change_in_place() -> None:
    with harness() as node:
        node.settle()
        node.reconfigure(
            title="x",
            viewers={"max": 3, "approval": "manual"},
            origins=["https://example.org"],
            ice_servers=[{"urls": ["stun:a"]}],
        )
        assert node.node.config.viewers.max == 3


def test_a_successor_takes_over_the_viewers_and_their_sockets() -> None:
    with harness() as node:
        node.settle()
        held = node.holdings
        assert held == ("viewers", "viewers 127.0.0.1:0")
        node.replace({"title": "Second"})
        assert node.holdings == held
        assert len(node.mounts) == 1
        assert json.loads(get(node, "/about").text)["title"] == "Second"
        node.push(KEYFRAME, "video")


def test_without_a_server_it_says_what_to_write() -> None:
    with (
        pytest.raises(ValueError, match=r"there is no server to show it; give the graph 'serve: \{listen:"),
        harness(listen=None) as node,
    ):
        node.settle()


def test_an_address_that_is_not_ours_is_named() -> None:
    with (
        pytest.raises(ResourceBusy, match=r"viewers cannot be served on UDP at 192\.0\.2\.254: "),
        harness(listen=("192.0.2.254", 0)) as node,
    ):
        node.run()


def test_with_nothing_connected_it_says_so() -> None:
    with harness(connected=()) as node:
        node.settle()
        with pytest.raises(ValueError, match="neither 'video' nor 'audio' is connected"):
            node.finish()


def test_other_formats_are_refused_by_name() -> None:
    with harness() as node:
        node.settle()
        with pytest.raises(
            NegotiationError, match=r"out\.video takes codec h264 or vp8 or vp9 or av1, but the test gives hevc"
        ):
            node.push(EncodedPacket(EncodedCaps(codec="hevc"), b"x", time_ns=0), "video")


def test_pictures_out_of_order_are_refused_with_the_way_out() -> None:
    with harness() as node:
        node.settle()
        for time_ns, decode_ns in ((0, -80), (120, -40)):  # decoded before shown, by a constant: fine
            node.push(replace(KEYFRAME, time_ns=time_ns, decode_ns=decode_ns), "video")
        with pytest.raises(NegotiationError, match=r"\(B-frames\).*put 'decode' and 'hw-encode' in between"):
            node.push(replace(KEYFRAME, time_ns=40, decode_ns=0), "video")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({"viewers": {"max": 0}}, "greater than or equal to 1"),
        ({"viewers": {"most": 3}}, "Extra inputs"),
        ({"titel": "x"}, "Extra inputs"),
        ({"title": "x" * 201}, "at most 200 characters"),
        ({"ice_servers": [{"urls": []}]}, "at least 1 item"),
        (
            {"ice_servers": [{"urls": ["http://x"]}]},
            "'http://x' is no address of a STUN or TURN server; write turn:HOST",
        ),
        ({"ice_servers": [{"urls": ["stun:x>,<y"]}]}, "no address of a STUN or TURN server"),
        ({"ice_servers": [{"urls": ["turn:x"]}]}, "without 'username' and 'credential'; give both"),
        ({"ice_servers": [{"urls": ["stun:x"], "username": "a"}]}, "go together; give both or none"),
        (
            {"ice_servers": [{"urls": ["turn:x"], "username": "a", "credential": "b", "secret": "c"}]},
            "'secret' is in place of 'username' and 'credential'; leave those out, or it",
        ),
        ({"public_addresses": ["home.example.org"]}, "'home.example.org' is no IP address, with or without a port"),
        ({"public_addresses": ["203.0.113.7:70000"]}, "write it as 192.0.2.1:5000"),
        (
            {"ice_servers": [{"urls": ["turn:x"], "username": "a\r\nSet-Cookie: b", "credential": "c"}]},
            "'username' travels in a header",
        ),
        (
            {"ice_servers": [{"urls": ["turn:x"], "username": "a", "credential": "ü"}]},
            "'credential' travels in a header",
        ),
    ],
)
def test_settings_are_checked(written: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        WebrtcOutConfig.model_validate(written)


@pytest.mark.parametrize(
    "url", ["stun:a.example", "stuns:[2001:db8::1]:5349", "turn:192.0.2.1:3478?transport=tcp", "turns:a-b.example:443"]
)
def test_addresses_of_relays_are_taken(url: str) -> None:
    by_secret = {"urls": [url], "secret": "north"}
    assert WebrtcOutConfig.model_validate({"ice_servers": [by_secret]}).ice_servers[0].secret == "north"
    server = {"urls": [url], "username": "viewer", "credential": "a secret"}
    assert WebrtcOutConfig.model_validate({"ice_servers": [server]}).ice_servers[0].urls == [url]


def test_records_of_several_nodes_are_taken_and_go_to_nobody_without_viewers() -> None:
    with harness({"data": {"delivery": "lossy", "backlog": "4KiB"}}) as node:
        node.settle()
        for number in range(3):
            node.push(Record({"number": number}, number), "data")
        node.settle()
        assert node.facts.get("dropped_records") is None
        node.reconfigure(data={"delivery": "ordered"})
        node.finish()
