"""Viewers who get less than the best, in sentences: because of the uplink that they share, or of their own links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from flowstream.graph.diagnostics import listed
from flowstream.node.quantities import format_bitrate
from flowstream.runtime.audience import Limit, Limited
from flowstream.runtime.cause import Cause

MOST_NAMED: Final = 3
"""How many viewers a sentence names; the others are counted."""


def sentence(called: str, rung: str | None, limit: Limit) -> str:
    """What one viewer gets and why not more: ``viewer Ann is on low: ...``."""
    return f"viewer {called} {_gets(rung)}: {_because(limit)}"


def causes_of(limited: Iterable[Limited]) -> Iterable[Cause]:
    """For each output one for its uplink, and one for the links of its viewers."""
    found = list(limited)
    for node in dict.fromkeys(each.node for each in found):
        here = [each for each in found if each.node == node]
        shared = [each for each in here if each.limit.by == "uplink"]
        if shared:
            since_ns = min(each.since_ns for each in shared)
            yield Cause(node, "narrow-uplink", _of_uplink(shared), since_ns, (node,), is_fault=_is_fault(shared))
        own = [each for each in here if each.limit.by == "link"]
        if own:
            since_ns = min(each.since_ns for each in own)
            yield Cause(node, "narrow-link", _of_links(own), since_ns, (node,), is_fault=_is_fault(own))


def _is_fault(limited: Sequence[Limited]) -> bool:
    """Less than the best is as it should be, no picture is not."""
    return any(each.rung is None for each in limited)


def _of_uplink(limited: Sequence[Limited]) -> str:
    groups = []
    for rung in dict.fromkeys(each.rung for each in sorted(limited, key=lambda each: each.rung is not None)):
        names = [each.called for each in limited if each.rung == rung]
        groups.append(f"{_viewers(names)} {_gets(rung, is_one=len(names) == 1)}")
    return f"{listed(groups)}: {_because(limited[0].limit)}"


def _of_links(limited: Sequence[Limited]) -> str:
    worst_first = sorted(limited, key=lambda each: (each.rung is not None, each.limit.rate_bps or 0))
    if len(limited) == 1:
        return sentence(limited[0].called, limited[0].rung, limited[0].limit)
    named = [f"viewer {each.called} {_gets(each.rung)} ({_because(each.limit)})" for each in worst_first[:MOST_NAMED]]
    more = len(limited) - len(named)
    return listed([*named, f"{more} more {'is' if more == 1 else 'are'} held up by their links"] if more else named)


def _viewers(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"viewer {names[0]}"
    more = len(names) - MOST_NAMED
    return "viewers " + listed([*names[:MOST_NAMED], f"{more} more"] if more > 0 else names)


def _gets(rung: str | None, *, is_one: bool = True) -> str:
    if rung is None:
        return f"{'gets' if is_one else 'get'} no picture"
    return f"{'is' if is_one else 'are'} on {rung}"


def _because(limit: Limit) -> str:
    if limit.by == "uplink":
        rate = "" if limit.rate_bps is None else f" of {_rate(limit.rate_bps)}"
        shared = "is too narrow for it" if limit.sharing == 1 else f"is shared by {limit.sharing} viewers"
        return f"the uplink{rate} {shared}"
    carries = "its link carries no more" if limit.rate_bps is None else f"its link carries {_rate(limit.rate_bps)}"
    if limit.above is None or limit.above_bps is None:
        return carries
    return f"{carries}, and {limit.above} needs {_rate(limit.above_bps)}"


def _rate(bps: int) -> str:
    """With three digits: nobody knows it better."""
    digits = max(0, len(str(bps)) - 3)
    return format_bitrate(round(bps, -digits))
