"""Graphs at random: each is the calm one with something before the encoder and something beside it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

LISTEN = "SOAK_LISTEN"
"""The environment variable that says where viewers are served, so that the same file runs twice at a time."""

CALM: dict[str, dict[str, Any]] = {
    "pattern": {"type": "test-pattern", "size": "320x180", "fps": 15},
    "tone": {"type": "tone"},
    "encode": {"type": "hw-encode", "from": "pattern", "bitrate": "200k", "max": "800k", "keyframe_interval": "1s"},
    "voice": {"type": "opus-encode", "from": "tone"},
    "out": {"type": "webrtc-out", "inputs": {"video": "encode", "audio": "voice"}, "title": "Soak"},
}
"""What is always there, and all there is when the run is looked at."""

RESTART = {"on": "any", "backoff": {"first": "100ms", "max": "2s"}}
LIMITED = {"on": "end", "backoff": {"first": "200ms", "max": "1s"}, "limit": 3}

LIVE_VALUES = {
    "encode.bitrate": ("150k", "300k", "400k"),
    "encode.keyframe_interval": ("forever",),  # no value: refused
    "pattern.fps": ("10", "15", "20"),
    "tone.frequency": ("330", "440", "550"),
    "out.title": ("Soak", "Soaked"),
    "out.viewers.max": ("6", "12"),
    "breaks.after": ("3", "20", "60"),
    "delay.delay": ("10ms", "120ms"),
    "broken.drop": ("0%", "20%"),
    "encode.speed": ("veryfast", "auto"),
    "nobody.bitrate": ("1M",),  # not there: refused
}
"""What is set while it runs."""


def graph(chance: random.Random) -> dict[str, dict[str, Any]]:
    """The nodes of a graph that can be run."""
    nodes = {id: dict(each) for id, each in CALM.items()}
    nodes["pattern"] |= {"size": chance.choice(("320x180", "320x180", "480x270")), "fps": chance.choice((10, 15, 20))}
    nodes["encode"]["bitrate"] = chance.choice(("150k", "200k", "300k"))
    if chance.random() < 0.2:
        nodes["encode"]["speed"] = "ultrafast"
    nodes["tone"]["frequency"] = chance.choice((330, 440))
    last = "pattern"
    for id, node in _chain(chance):
        nodes[id] = {**node, "from": last}
        last = id
    nodes["encode"]["from"] = last
    for branch in chance.sample(_BRANCHES, chance.randint(0, 4)):
        nodes |= branch(chance)
    order = list(nodes)
    chance.shuffle(order)
    return {id: nodes[id] for id in order}


def everything(chance: random.Random) -> dict[str, dict[str, Any]]:
    """A graph in which every node type is that may be there, and none goes wrong."""
    nodes = {id: dict(each) for id, each in CALM.items()}
    nodes["clock"] = {"type": "overlay", "text": "Soak", "from": "pattern"}
    nodes["breaks"] = {"type": "wear/breaks", "from": "clock"}
    nodes["holds"] = {"type": "wear/holds", "from": "breaks"}
    nodes["broken"] = {"type": "fault", "from": "holds"}
    nodes["slower"] = {"type": "throttle", "max_fps": 12, "from": "broken"}
    nodes["encode"]["from"] = "slower"
    for branch in _BRANCHES:
        nodes |= branch(chance)
    nodes["counts"]["way"] = "fine"
    return nodes


def _chain(chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """What stands before the encoder."""
    if chance.random() < 0.4:
        yield "clock", {"type": "overlay", "text": chance.choice(("%H:%M:%S", "Soak %f"))}
    if chance.random() < 0.6:
        way = chance.choice(("fine", "fine", "raise", "peer", "hang", "slow"))
        broken: dict[str, Any] = {"type": "wear/breaks", "way": way, "after": chance.choice((3, 20, 60))}
        yield "breaks", broken | ({"restart": RESTART} if chance.random() < 0.8 else {})
    if chance.random() < 0.3:
        way = chance.choice(("fine", "raise", "peer", "slow"))
        yield "holds", {"type": "wear/holds", "way": way, "after": chance.choice((20, 60)), "restart": RESTART}
    if chance.random() < 0.3:
        lost: dict[str, Any] = {"type": "fault", "drop": chance.choice(("0%", "20%")), "restart": RESTART}
        yield "broken", lost | {chance.choice(("fail_after", "leave_after", "stall_after")): chance.choice((0, 30, 80))}
    if chance.random() < 0.3:
        yield "slower", {"type": "throttle", "max_fps": chance.choice((5, 12))}


def _tape(chance: random.Random) -> dict[str, dict[str, Any]]:
    sound = {"audio": "voice"} if chance.random() < 0.7 else {}
    return {
        "small": {"type": "scale", "from": "pattern", "size": "160x90"},
        "tiny": {"type": "hw-encode", "from": "small", "bitrate": "400k", "max": "800k", "keyframe_interval": "500ms"},
        "tape": {"type": "recorder", "inputs": {"video": "tiny"} | sound, "path": "recordings/tape.mp4",
                 "restart": RESTART},
    }  # fmt: skip


def _slow(chance: random.Random) -> dict[str, dict[str, Any]]:
    policy = chance.choice(("drop-oldest", "drop-newest", "latest", "block"))
    limit = {} if policy == "latest" else {"limit": {"items": chance.choice((2, 8))}}
    return {
        "delay": {"type": "fault", "from": {"output": "voice", "overflow": policy, **limit}, "delay": "120ms"},
        "late": {"type": "discard", "from": "delay"},
    }


def _counting(chance: random.Random) -> dict[str, dict[str, Any]]:
    way = chance.choice(("fine", "raise", "peer", "hang", "slow", "end"))
    node: dict[str, Any] = {"type": "wear/counts", "way": way, "after": chance.choice((3, 30))}
    return {
        "counts": node | chance.choice(({}, {"restart": RESTART}, {"restart": LIMITED})),
        "counted": {"type": "discard", "from": "counts"},
    }


def _program(chance: random.Random) -> dict[str, dict[str, Any]]:
    overflow = {"output": "pattern", "overflow": chance.choice(("latest", "drop-oldest"))}
    return {"program": {"type": "app-out", "from": overflow}}


def _second(chance: random.Random) -> dict[str, dict[str, Any]]:
    return {"aside": {"type": "webrtc-out", "from": "encode", "title": "Aside"}}


def _probed(chance: random.Random) -> dict[str, dict[str, Any]]:
    return {
        "seen": {"type": "decode", "from": "encode"},
        "probe": {"type": "probe", "from": "seen", "interval": chance.choice(("1s", "200ms"))},
        "probed": {"type": "discard", "from": "probe.passed"},
        "reports": {"type": "discard", "from": "probe.report"},
    }


_BRANCHES = (_tape, _slow, _counting, _program, _second, _probed)


def text_of(nodes: dict[str, dict[str, Any]], listen: str = f"$(env:{LISTEN})") -> str:
    """The graph as a file."""
    lines = [f'serve: {{listen: "{listen}"}}', "nodes:"]
    lines += [f"  {id}: {_flow(node)}" for id, node in nodes.items()]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and (" " in value or "%H" in value) else str(value)


def broken(nodes: dict[str, dict[str, Any]], chance: random.Random) -> tuple[str, str]:
    """A file that is refused, by the check or by what it would start, and what is wrong with it."""
    text = text_of(nodes)
    spoiled = {id: dict(node) for id, node in nodes.items()}
    kind = chance.choice(("cut", "empty", "binary", "type", "field", "from", "value", "opens", "address", "loop"))
    if kind == "cut":
        return text[: text.rindex("{") + chance.randint(1, 20)], kind
    if kind == "empty":
        return "", kind
    if kind == "binary":
        return text + "\0\x07", kind
    if kind == "type":
        spoiled["tone"]["type"] = "tune"
    elif kind == "field":
        spoiled["encode"]["bitrat"] = "1M"
    elif kind == "from":
        spoiled["voice"]["from"] = "tune"
    elif kind == "value":
        spoiled["pattern"]["fps"] = -1
    elif kind == "opens":
        spoiled["closed"] = {"type": "wear/breaks", "from": "pattern", "opens": False}
        spoiled["nowhere"] = {"type": "discard", "from": "closed"}
    elif kind == "address":
        return text_of(nodes, "127.0.0.1:9"), kind
    else:
        spoiled["first"] = {"type": "throttle", "from": "second", "max_fps": 5}
        spoiled["second"] = {"type": "throttle", "from": "first", "max_fps": 5}
    return text_of(spoiled), kind
