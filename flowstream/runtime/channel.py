"""Edges at work: the consumer's side (Channel, Inbox) and the producer's side (Feed, Outlet).

A channel belongs to a consumer's port and outlives what feeds it. Each producer fills a queue of its own, its feed; a
channel with two feeds delivers the first to its end before it touches the second, so that a replaced node's tail comes
before its successor's head.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from flowstream.graph.plan import Edge
from flowstream.media.packets import EncodedPacket
from flowstream.media.signals import KeyframeRequest
from flowstream.proto.overflow import Offered, OverflowQueue
from flowstream.runtime.shortcut import Giver, Look, Shortcut, Taker
from flowstream.runtime.wakeup import Turns, Wakeup

Request = Callable[[str, KeyframeRequest], None]
Meter = Callable[[int | None, int | None], int]
"""Takes when a payload was captured, if that is known, and when it was taken, if not now; says how many on it wants the
next."""

_DROPPED = Offered.DROPPED  # looked at for each payload on each edge

MOST_FEEDS = 5
"""How many feeds of a channel hold payloads at once: the newest, and those before it that are not delivered yet."""


class Feed:
    """What one producer's output puts on an edge, and the producer's hold on it."""

    __slots__ = ("channel", "closed", "is_leaving", "outlet", "queue", "space", "wakeup")

    def __init__(self, channel: Channel, outlet: Outlet) -> None:
        self.channel = channel
        self.wakeup = channel.wakeup  # of the consumer
        self.outlet = outlet
        self.queue: OverflowQueue[Any] = OverflowQueue(channel.edge.overflow, channel.edge.limit)
        self.space = Wakeup(channel.turns)
        self.closed = False
        self.is_leaving = False  # whether its producer is being stopped for good, and loses nothing by that

    def close(self) -> None:
        """Nothing more comes from this producer; what waits, in the queue or before it, is still delivered."""
        self.closed = True
        self.outlet.detach(self)
        self.space.set()
        self.channel.wakeup.set()


class Channel:
    """A consumer's end of an edge."""

    __slots__ = (
        "caps", "countdown", "delivered", "drops", "edge", "feeds", "inbox", "meter", "port", "received", "stride",
        "turns", "wakeup",
    )  # fmt: skip

    def __init__(self, edge: Edge, wakeup: Wakeup, turns: Turns, inbox: Inbox | None = None) -> None:
        self.edge = edge
        self.port = edge.input
        self.inbox = inbox
        self.wakeup = wakeup
        self.turns = turns
        self.feeds: deque[Feed] = deque()
        self.caps: Any = None  # of the payload delivered last
        self.received = 0  # of feeds that are gone, as are the next two
        self.delivered = 0
        self.drops: Counter[str] = Counter()
        self.meter: Meter | None = None
        self.countdown = 0  # payloads until the meter sees one; below zero it sees none
        self.stride = 0  # what the meter said last

    def watch(self, meter: Meter) -> None:
        """Shows a meter the next payload that is taken."""
        self.meter = meter
        self.countdown = self.stride = 1
        if self.inbox is not None:
            self.inbox.count()  # tells the shortcut

    def rewire(self, edge: Edge) -> None:
        """The same port with another producer or other options, for the feeds to come."""
        self.edge = edge

    def attach(self, outlet: Outlet, *, continues: bool = False) -> Feed:
        """Makes an output the newest feed of this channel; packets begin at a keyframe unless it ``continues``.

        An output that is the newest feed already goes on in the same queue, so that a producer which waits there
        waits on. Of feeds before it the last few are still delivered, the others lost: a consumer that stands still
        while its producer is replaced again and again does not gather all that they gave.
        """
        if self.feeds and self.feeds[-1].outlet is outlet:
            feed = self.feeds[-1]
            feed.closed = False
            feed.queue.change(self.edge.overflow, self.edge.limit)
            feed.space.set()
            outlet.detach(feed)
        else:
            feed = Feed(self, outlet)
            self.feeds.append(feed)
        outlet.attach(feed)
        while len(self.feeds) > MOST_FEEDS:
            oldest = self.feeds[0]
            oldest.close()
            self.feeds.popleft()
            oldest.queue.flush("reload-deadline")
            self._retire(oldest)
        if issubclass(EncodedPacket, outlet.payloads) and self.edge.overflow != "latest" and not continues:
            feed.queue.require_keyframe()
        return feed

    def poll(self) -> Any | None:
        """The next payload, or None."""
        feeds = self.feeds
        while feeds:
            feed = feeds[0]
            queue = feed.queue
            if queue.items:
                if queue.waiting:
                    item = queue.poll()
                    feed.space.set()
                else:
                    item = queue.poll()
                self.countdown -= 1
                if not self.countdown and self.meter is not None:
                    self.countdown = self.stride = self.meter(getattr(item, "capture_ns", None), None)
                return item
            if queue.wants_keyframe:
                queue.wants_keyframe = False
                feed.outlet.request(KeyframeRequest(f"{self.edge.name} overflowed"))
            if not feed.closed or len(feeds) == 1:
                return None
            self._retire(feeds.popleft())
        return None

    def passed(self, feed: Feed, number: int, looks: Iterable[Look]) -> None:
        """Counts payloads of a feed that were taken without the loop."""
        feed.outlet.emitted += number
        feed.queue.passed(number)
        if self.meter is not None:
            for captured_ns, taken_ns in looks:
                self.stride = self.meter(captured_ns, taken_ns)

    @property
    def is_unbroken(self) -> bool:
        """Whether every packet so far will be delivered, so that the next one can be understood."""
        queue = self.feeds[-1].queue
        return queue.policy in ("block", "drop-to-keyframe") and not queue.needs_keyframe

    @property
    def makes_wait(self) -> bool:
        """Whether a producer waits for room."""
        return any(feed.queue.waiting for feed in self.feeds)

    @property
    def ended(self) -> bool:
        """Whether all has been delivered and nothing will follow."""
        return all(feed.closed and not len(feed.queue) for feed in self.feeds)  # which also holds who waits

    def request(self, signal: KeyframeRequest) -> None:
        """Sends a request upstream, to the newest producer."""
        if self.feeds and not self.feeds[-1].closed:
            self.feeds[-1].outlet.request(signal)

    def close(self, cause: str) -> None:
        """The consumer is gone: what waits is dropped and the producers are let go."""
        for feed in list(self.feeds):
            feed.close()
            feed.queue.flush(cause)

    def end(self) -> None:
        """Nothing more comes from those who feed it now; what waits is still delivered."""
        for feed in list(self.feeds):
            feed.close()

    def lose(self, count: int, cause: str) -> None:
        """Counts payloads that came after their producer had been let go."""
        self.received += count
        self.drops[cause] += count

    def _retire(self, feed: Feed) -> None:
        self.received += feed.queue.received
        self.delivered += feed.queue.delivered
        self.drops.update(feed.queue.drops)

    def counts(self) -> dict[str, int]:
        """``received``, ``delivered``, ``queued`` and ``dropped`` payloads over the channel's life.

        Those that a producer waits with count as queued.
        """
        return {
            "received": self.received + sum(f.queue.received for f in self.feeds),
            "delivered": self.delivered + sum(f.queue.delivered for f in self.feeds),
            "queued": sum(len(f.queue) + len(f.queue.waiting) for f in self.feeds),
            "dropped": sum(self.losses().values()),
        }

    def losses(self) -> Counter[str]:
        """Drops by cause over the channel's life."""
        losses = Counter(self.drops)
        for feed in self.feeds:
            losses.update(feed.queue.drops)
        return losses


class Inbox:
    """All channels into one node, and the one thing its task waits for."""

    def __init__(self, turns: Turns) -> None:
        self.wakeup = Wakeup(turns)
        self.turns = turns
        self.channels: dict[tuple[str, int], Channel] = {}
        self.connected = False  # whether the wiring is in place, so that no channel means no input
        self.only: Channel | None = None  # where there is no other
        self.taker: Taker | None = None  # of what comes, where it is served by a thread
        self.shortcut: Shortcut | None = None  # that leads here
        self._order: tuple[Channel, ...] = ()  # of the next round; whoever was served goes to its end

    def open(self, edge: Edge) -> Channel:
        """Adds a channel for an edge."""
        channel = Channel(edge, self.wakeup, self.turns, self)
        self.channels[(edge.input, edge.index)] = channel
        self._line_up()
        return channel

    def remove(self, edge: Edge) -> None:
        """Takes a channel away; what waits on it is dropped."""
        self.channels.pop((edge.input, edge.index)).close("reload")
        self._line_up()
        self.wakeup.set()

    def count(self) -> None:
        """Counts what came by the shortcut that leads here."""
        if self.shortcut is not None:
            self.shortcut.count()

    def cut(self) -> None:
        """Closes the shortcut that leads here."""
        if self.shortcut is not None:
            self.shortcut.close()

    def _line_up(self) -> None:
        self.cut()
        self._order = tuple(self.channels.values())
        self.only = self._order[0] if len(self._order) == 1 else None

    def poll(self, ports: Iterable[str] | None = None) -> tuple[Channel, Any] | None:
        """The next payload of any of the ports (None: of all), in turn, with its channel."""
        channel = self.only
        if channel is not None:
            if ports is not None and channel.port not in ports:
                return None
            item = channel.poll()
            return None if item is None else (channel, item)
        order = self._order
        for channel in order:
            if ports is not None and channel.port not in ports:
                continue
            item = channel.poll()
            if item is not None:
                self._order = (*(c for c in order if c is not channel), channel)
                return channel, item
        return None

    @property
    def may_go_on(self) -> bool:
        """Whether something may wait, be it the end; false only where it is certain that nothing does."""
        channel = self.only
        if channel is None or len(channel.feeds) != 1:
            return True
        feed = channel.feeds[0]
        return feed.closed or bool(feed.queue.items)

    def feed(self, port: str) -> Feed | None:
        """A feed of media into a port, while whose producer goes on the port has not ended."""
        for channel in self._order:
            if channel.port == port and not channel.edge.feedback and channel.feeds:
                return channel.feeds[-1]
        return None

    def ended(self, ports: Iterable[str] | None = None) -> bool:
        """Whether the media channels of the ports (None: of all) have ended, once wired."""
        if not self.connected:
            return False
        is_media = False
        for channel in self._order:  # a plain loop: it runs at every wait, and the first channel usually decides
            if channel.edge.feedback or (ports is not None and channel.port not in ports):
                continue
            if not channel.feeds[-1].closed or not channel.ended:
                return False
            is_media = True
        return is_media or self._ended_beside_media(ports)

    def _ended_beside_media(self, ports: Iterable[str] | None) -> bool:
        """For ports that only take feedback: it ends with the node's media, or with whoever gives it."""
        if any(not channel.edge.feedback for channel in self._order):
            return self.ended()
        return all(
            channel.feeds[-1].closed and channel.ended
            for channel in self._order
            if ports is None or channel.port in ports
        )

    def close(self, cause: str) -> None:
        """The node is gone."""
        for channel in self.channels.values():
            channel.close(cause)


class Outlet:
    """One output of a node: its feeds, and the way up for requests."""

    __slots__ = ("_request", "emitted", "feeds", "name", "payloads", "shortcut")

    def __init__(self, name: str, payloads: tuple[type[Any], ...], request: Request) -> None:
        self.name = name
        self.payloads = payloads
        self.feeds: tuple[Feed, ...] = ()
        self.emitted = 0
        self.shortcut: Shortcut | None = None
        self._request = request

    def attach(self, feed: Feed) -> None:
        """Adds an edge."""
        self.cut()
        self.feeds = (*self.feeds, feed)

    def detach(self, feed: Feed) -> None:
        """Takes an edge away; harmless when it is gone already."""
        self.cut()
        self.feeds = tuple(f for f in self.feeds if f is not feed)

    def shorten(self, giver: Giver) -> None:
        """Opens the shortcut, where there may be one: to a node on a thread that gets nothing else."""
        if len(self.feeds) != 1:
            return
        (feed,) = self.feeds
        channel, inbox = feed.channel, feed.channel.inbox
        if inbox is None or inbox.taker is None or inbox.only is not channel or inbox.shortcut is not None:
            return
        if not channel.edge.feedback and channel.feeds[0] is feed:
            self.shortcut = inbox.shortcut = Shortcut(giver, feed, inbox.taker)

    def cut(self) -> None:
        """Closes the shortcut."""
        if self.shortcut is not None:
            self.shortcut.close()

    def request(self, signal: KeyframeRequest) -> None:
        """A consumer asks the node for something."""
        self._request(self.name, signal)

    def offer(self, payload: Any) -> list[Feed] | None:
        """Offers a payload to every edge; gives those that make the producer wait, if any."""
        self.emitted += 1
        blocked: list[Feed] | None = None
        for feed in self.feeds:
            outcome = feed.queue.offer(payload)
            if outcome <= _DROPPED:
                feed.wakeup.set()
            elif outcome == Offered.FULL:
                blocked = [*(blocked or ()), feed]
            else:
                self.request(KeyframeRequest(f"{feed.channel.edge.name} overflowed"))
        return blocked

    def hand_over(self) -> list[Channel]:
        """Lets go of the edges on which a successor waits, and gives them."""
        late = [feed for feed in self.feeds if feed.channel.feeds[-1] is not feed]
        for feed in late:
            feed.close()
        return [feed.channel for feed in late]

    def leave(self) -> None:
        """The node is being stopped for good: what it waits with is still delivered."""
        for feed in self.feeds:
            feed.is_leaving = True

    def close(self) -> None:
        """The node will emit nothing more."""
        for feed in self.feeds:
            feed.close()


async def wait_for_room(feeds: Iterable[Feed], payload: Any) -> None:
    """Waits until the edges that block have let the payload in, or their consumers are gone.

    Cancelled, the payload is lost where it still waits.
    """
    try:
        for feed in feeds:
            while not feed.closed and any(each is payload for each in feed.queue.waiting):
                await feed.space
    except BaseException:
        give_up(feeds, payload)
        raise


def give_up(feeds: Iterable[Feed], payload: Any) -> None:
    """The producer was ended while it waited with a payload."""
    for feed in feeds:
        if not feed.closed and not feed.is_leaving:  # or it is still delivered
            feed.queue.withdraw(payload, "cancelled")
