"""Reloads while ten watch: nine players of libdatachannel, which tell of every packet, and a browser on the page.

Each edit of the graph is saved while they watch. Nobody may get another connection, miss a packet, see time go back, or
wait for longer than the plan of the reload has said.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.clients import FOLDER, node, require_npm
from tests.e2e.running import browsing, running, screen, until
from tests.e2e.test_reload_watched import TAP, Watching

pytestmark = [pytest.mark.real, pytest.mark.alone]

CROWD = Path(__file__).parents[1] / "clients" / "whep" / "crowd.js"
PLAYERS = 9
FPS = 30
FRAME_MS = 1000 / FPS
CLOCKS = {"video": 90, "audio": 48}  # ticks in a millisecond

GRAPH = f"""\
nodes:
  camera: {{type: test-pattern, size: 320x180, fps: {FPS}}}
  encode: {{type: hw-encode, from: camera, bitrate: 500k, keyframe_interval: 2s}}
  tone: {{type: tone}}
  voice: {{type: opus-encode, from: tone}}
  out: {{type: webrtc-out, inputs: {{video: encode, audio: voice}}}}
"""
CAMERA = f"  camera: {{type: test-pattern, size: 320x180, fps: {FPS}}}\n"
SCREEN = f"  screen: {{type: screen, fps: {FPS}}}\n"
SMALL = """\
  half: {type: scale, from: screen, size: 160x90}
  small: {type: hw-encode, from: half, bitrate: 200k, keyframe_interval: 2s}
"""

EDITS: tuple[tuple[str, tuple[tuple[str, str], ...], dict[str, str]], ...] = (
    ("the camera is a screen", ((CAMERA, SCREEN), ("from: camera", "from: screen")), {"encode": "rewire"}),
    ("another encoder", (("500k,", "500k, profile: main,"),), {"encode": "replace"}),
    ("one more rung", (("  tone:", SMALL + "  tone:"), ("video: encode", "video: [encode, small]")), {"out": "rewire"}),
    ("another title", (("audio: voice}}", "audio: voice}, title: Desk}"),), {"out": "update"}),
    ("another name", (("  out: {type", "  wall: {was: out, type"),), {"wall": "update"}),
)


@dataclass
class Stream:
    """The packets of one SSRC at one player: when each arrived, its number and its time, unwrapped, and its marker."""

    packets: list[tuple[float, int, int, bool]] = field(default_factory=list)

    def mark(self) -> int:
        """Where the next packet will be."""
        return len(self.packets)

    def since(self, mark: int) -> Stream:
        """What has come from there on."""
        return Stream(self.packets[mark:])

    def missing(self) -> set[int]:
        """Numbers that never came, neither the first time nor again."""
        numbers = {number for _, number, *_ in self.packets}
        return set(range(min(numbers), max(numbers) + 1)) - numbers

    def pauses_ms(self, clock: int) -> list[float]:
        """The distances of what is shown or heard, one after the other."""
        times = list(dict.fromkeys(timestamp for _, _, timestamp, _ in self.packets))
        return [(after - before) / clock for before, after in pairwise(times)]

    def lateness_ms(self, clock: int) -> float:
        """How far the time of arrival is from the time in the packets at the least, up to a constant."""
        return min(ms - timestamp / clock for ms, _, timestamp, _ in self.packets)

    def take(self, found: list[list[float]]) -> None:
        for ms, number, timestamp, marker in found:
            before = self.packets[-1] if self.packets else (0.0, int(number), int(timestamp), False)
            number = before[1] + (int(number) - before[1] + 2**15) % 2**16 - 2**15
            timestamp = before[2] + (int(timestamp) - before[2] + 2**31) % 2**32 - 2**31
            self.packets.append((ms, int(number), int(timestamp), bool(marker)))


class Crowd:
    """The players, and all that they have got, by player and SSRC."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.streams: list[dict[str, Stream]] = [{} for _ in range(PLAYERS)]
        self.sessions: list[dict[str, Any]] = []
        assert self._answer() == "connected"

    def look(self) -> None:
        """Takes what has come since the last time."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = self._answer()
        for streams, viewer in zip(self.streams, told, strict=True):
            for ssrc, packets in viewer.pop("streams").items():
                streams.setdefault(ssrc, Stream()).take(packets)
        self.sessions = told

    def more(self, pictures: int) -> None:
        """Waits until every player has so many pictures more."""

        def counts() -> list[int]:
            self.look()
            return [sum(end for *_, end in self.of(player, "video").packets) for player in range(PLAYERS)]

        there = counts()
        until(
            f"{pictures} more pictures for everybody",
            lambda: all(now >= before + pictures for now, before in zip(counts(), there, strict=True)),
        )

    def of(self, player: int, kind: str) -> Stream:
        """The video is what has the larger packets, and so fewer that end a picture."""
        both = sorted(self.streams[player].values(), key=lambda stream: sum(end for *_, end in stream.packets))
        return (both[-1] if kind == "video" else both[0]) if len(both) == 2 else Stream()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the players have ended"
        return json.loads(line)


@contextmanager
def crowd(url: str) -> Iterator[Crowd]:
    require_npm("node-datachannel")
    process = subprocess.Popen(
        [str(node()), str(CROWD), f"{url}out/whep", str(PLAYERS)],
        env={**os.environ, "NODE_PATH": str(FOLDER)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Crowd(process)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen(320, 180) as display:
        yield display


def announced_ms(changes: dict[str, Any]) -> float:
    """For how long the plan of a reload says that viewers wait, at most."""
    spans = [each[key] or 0 for each in changes.values() for key in ("at_most_seconds", "gap_seconds")]
    return 1000 * max(spans)


def stats_of(page: Any, type: str) -> list[dict[str, Any]]:
    """What the browser says of its connection, by type."""
    stats = page.evaluate("async () => [...(await window.connections[0].getStats()).values()]")
    return [each for each in stats if each["type"] == type]


def transport_of(page: Any) -> dict[str, Any]:
    """The browser's ICE and DTLS, as far as they stay what they are."""
    (transport,) = stats_of(page, "transport")
    assert transport["dtlsState"] == "connected"
    kept = ("iceLocalUsernameFragment", "selectedCandidatePairChanges", "selectedCandidatePairId")
    return {key: transport[key] for key in (*kept, "remoteCertificateId")}


@pytest.mark.timeout(200)
def test_ten_viewers_keep_their_connections_and_their_time_through_every_edit(tmp_path: Path, display: str) -> None:
    graph = tmp_path / "graph.yaml"
    graph.write_text(GRAPH)
    with running(graph.name, tmp_path, DISPLAY=display) as run, browsing() as page:
        page.add_init_script(TAP)
        page.goto(run.link())
        browser = Watching(run, page, graph)
        until("the picture", lambda: len(browser.received()) > FPS)
        with crowd(run.link()) as players:
            players.more(2 * FPS)
            sessions, way, text = players.sessions, transport_of(page), GRAPH
            usual_ms = max(max(players.of(each, "video").pauses_ms(90)) for each in range(PLAYERS))
            for what, replacements, actions in EDITS:
                marks = [{ssrc: each.mark() for ssrc, each in streams.items()} for streams in players.streams]
                late_ms = [
                    {kind: players.of(each, kind).lateness_ms(clock) for kind, clock in CLOCKS.items()}
                    for each in range(PLAYERS)
                ]
                for old, new in replacements:
                    assert old in text, old
                    text = text.replace(old, new)
                changes = browser.save(text)["changes"]
                assert {id: changes[id]["action"] for id in actions} == actions, what
                players.more(3 * FPS)
                for player, streams in enumerate(players.streams):
                    assert streams.keys() == marks[player].keys(), f"{what}: the same synchronization sources"
                    for ssrc, stream in streams.items():
                        assert not stream.since(marks[player][ssrc]).missing(), what
                    for kind, clock in CLOCKS.items():
                        stream = players.of(player, kind)
                        mark = next(marks[player][ssrc] for ssrc, each in streams.items() if each is stream)
                        pauses_ms = stream.since(mark - 1).pauses_ms(clock)
                        assert min(pauses_ms) > 0, f"{what}: {kind} does not go back in time"
                        # A machine that is busy skips pictures now and then, also when nothing changes.
                        bound_ms = announced_ms(changes) + max(2 * FRAME_MS, 1.5 * usual_ms) + FRAME_MS
                        assert max(pauses_ms) <= bound_ms, f"{what}: {kind}"
                        shift_ms = stream.since(mark).lateness_ms(clock) - late_ms[player][kind]
                        assert abs(shift_ms) <= FRAME_MS, f"{what}: {kind} is where the clock on the wall is"
            assert players.sessions == sessions, "the same ICE and DTLS sessions"
            assert all(each["states"] == ["connecting", "connected"] for each in sessions)
        # One that was sent again to probe the path is the same picture.
        times = list(dict.fromkeys(time for time, _ in browser.received()))
        assert times == sorted(times)
        assert page.evaluate("window.connections.length") == 1
        assert transport_of(page) == way
        assert [each["packetsLost"] for each in stats_of(page, "inbound-rtp")] == [0, 0]
    assert [line for line in run.lines if line["level"] == "error"] == []
    joins = [line["event"] for line in run.lines if line["event"] in ("viewer-joined", "viewer-left")]
    assert joins.count("viewer-joined") == PLAYERS + 1, "nobody came back"
