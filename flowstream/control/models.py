"""What is asked of the control API and what it answers, as models: requests are held against them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flowstream.graph.overrides import MAX_TEXT
from flowstream.graph.sources import MAX_FILES


class _Model(BaseModel):
    # Built when they are first used: a run starts without waiting for what it may never be asked.
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class Nothing(_Model):
    """No values."""


class AskPlan(_Model):
    """Which files are asked about: the graph, then the layers over it."""

    files: list[str] = Field(min_length=1, max_length=MAX_FILES, description="Paths, the lowest layer first.")


class AskSet(_Model):
    """A value for a setting."""

    target: str = Field(max_length=1024, description="NODE.FIELD", examples=["encode.bitrate"])
    value: str = Field(max_length=MAX_TEXT, description="The value, as one writes it in a graph file.")
    save: bool = Field(default=False, description="Whether it is written into the file where it belongs, too.")


class AskClear(_Model):
    """What to take back."""

    target: str | None = Field(default=None, max_length=1024, description="NODE.FIELD; all that was set without it.")


class AskRollback(_Model):
    """Which revision to go back to."""

    number: int | None = Field(default=None, ge=1, description="Its number; the one before without it.")


class AskStop(_Model):
    """How to end."""

    now: bool = Field(default=False, description="At once, without draining.")


class NodeNow(_Model):
    """A node as it stands."""

    type: str
    state: str
    config: dict[str, Any] = Field(description="Its settings; secrets stand as the file writes them.")
    restarts: int
    received: int = Field(description="Payloads that came in.")
    emitted: dict[str, int] = Field(description="Payloads that went out, by output.")
    dropped: dict[str, int] = Field(description="Payloads that were lost on its inputs, by cause.")
    facts: dict[str, str | int | float | None] = Field(description="What the node says of itself.")
    error: str | None = Field(description="Why it failed.")


class Given(_Model):
    """A value that a setting was given while the graph runs."""

    target: str = Field(description="NODE.FIELD")
    value: str
    file: str | None = Field(description="What the files say there; null when they say nothing.")


class Revisions(_Model):
    """What runs and what the files hold."""

    running: str = Field(description="A digest of the files that run, and of what was set.")
    file: str = Field(description="A digest of the files as they were read last.")
    refused: str | None = Field(description="Why the files were refused, when they were.")
    number: int | None = Field(description="The number of the running revision in the history, when it is kept.")
    difference: str | None = Field(description="Why what runs is not what the files say; null when it is.")
    overrides: list[Given]


class Api(_Model):
    """The control API beside the viewers."""

    url: str
    token_file: str | None = Field(description="Where its token is; null when the graph gives it.")


class Certificate(_Model):
    """The certificate that viewers are served with."""

    fingerprint: str = Field(description="Its SHA-256, as browsers show it.")
    ends: str = Field(description="When it ends, in UTC.")
    is_made: bool = Field(description="Whether it was made here, so that browsers warn of it.")


class Status(_Model):
    """The run as it stands."""

    graph: str
    file: str | None
    state: Literal["starting", "running", "degraded", "draining", "ended"]
    revision: Revisions
    nodes: dict[str, NodeNow]
    listen: Annotated[list[str | int], Field(description="Host and port where viewers are served.")] | None
    tls: Certificate | None
    api: Api | None


class ChangeMade(_Model):
    """What becomes of one node."""

    node: str
    action: Literal["keep", "update", "rewire", "replace", "add", "remove"]
    effect: str
    causes: list[str]
    fields: list[str]
    was: str | None
    felt_by: list[str]
    at_most_seconds: float | None
    breaks: list[str]
    gap_seconds: float | None
    reaction: str | None


class PatchMade(_Model):
    """What leads from one revision to another."""

    lines: list[str] = Field(description="The same for people.")
    changes: list[ChangeMade]


class Changed(_Model):
    """What came of a change; ``patch`` is null when nothing had to be done."""

    revision: str
    patch: PatchMade | None
    saved: str | None = Field(description="The file that was written.")
    difference: str | None = Field(description="Why what runs is not what the files say; null when it is.")


class RevisionKept(_Model):
    """A revision that ran."""

    number: int
    revision: str
    time: str = Field(description="When it came, in UTC.")
    cause: str
    lines: list[str] = Field(description="What it changed.")
    overrides: list[Given]
    is_running: bool


class RevisionsKept(_Model):
    """The history, the oldest first."""

    revisions: list[RevisionKept]


class AskViewer(_Model):
    """Which viewer is meant."""

    viewer: str = Field(max_length=64, description="Its id.", examples=["k3fq"])
    node: str | None = Field(default=None, max_length=1024, description="The output, where two have that id.")


class AskPermit(AskViewer):
    """What a viewer may be shown; what is left out stays as it is."""

    video: bool | None = None
    audio: bool | None = None


class AskCap(AskViewer):
    """How much may be sent to a viewer."""

    bitrate: str | None = Field(
        default=None, max_length=64, description="At most so much, in bits per second; no bound without it.",
        examples=["600k"],
    )  # fmt: skip


class AskPriority(AskViewer):
    """Who comes first where the uplink is short."""

    priority: int = Field(
        ge=-100, le=100, description="A higher one comes before a lower one; everybody has 0 at first.", examples=[1]
    )


class AskView(_Model):
    """Which output is meant."""

    node: str | None = Field(default=None, max_length=1024, description="Its node; all of them without it.")


class AskInvite(AskView):
    """What an invitation is to say."""

    name: str | None = Field(default=None, max_length=40, description="What its viewer is called.")
    seconds: float = Field(default=86400.0, ge=1, le=366 * 86400, description="For how long it holds.")


class AskRevoke(_Model):
    """Which invitation is taken back."""

    id: str = Field(min_length=1, max_length=64)


class LimitNow(_Model):
    """What keeps a viewer from a better picture, or from any."""

    by: Literal["link", "unknown", "settling", "uplink", "cap", "choice", "paused", "codec"] = Field(
        description="The uplink that viewers share, or the viewer's link, of which nothing may be known yet, or which "
        "has not carried more for long enough; its cap, its choice; it is paused, or plays none of the codecs."
    )
    rate_bps: int | None = Field(description="What the uplink, its link or its cap is, in bits per second.")
    sharing: int = Field(description="How many viewers share the uplink.")
    above: str | None = Field(description="The rung that it would get next.")
    above_bps: int | None = Field(description="What that needs, in bits per second.")


class ViewerNow(_Model):
    """A viewer as it stands; what is not known is null."""

    node: str
    id: str = Field(description="What it is called by commands.")
    name: str | None = Field(description="What it calls itself, or was given.")
    is_verified: bool = Field(description="Whether it was given the name.")
    address: str
    state: Literal["connecting", "waiting", "watching", "paused", "gone", "rejected"]
    joined: str = Field(description="When it first came, in UTC.")
    video: bool = Field(description="Whether it may see the picture.")
    audio: bool = Field(description="Whether it may hear the sound.")
    cap_bps: int | None = Field(description="The most that is sent to it, in bits per second.")
    quality: str | None
    loss: float | None = Field(description="The fraction of packets that were lost lately.")
    rtt_ms: float | None
    bitrate_bps: float | None
    rung: str | None
    priority: int = Field(description="A higher one comes first where the uplink is short.")
    limit: LimitNow | None = Field(description="What keeps it from more; null when it has the best there is.")


class ViewNow(_Model):
    """An output as its viewers find it."""

    node: str
    approval: Literal["none", "token", "manual"]
    most: int = Field(description="How many may watch at a time.")
    watching: int
    waiting: int
    is_paused: bool = Field(description="Whether everybody sees a black picture.")


class ViewersNow(_Model):
    """The outputs with viewers, and everybody who is there or was."""

    views: list[ViewNow]
    viewers: list[ViewerNow]


class ViewerChangedNow(_Model):
    """A viewer as it stands after what was asked."""

    viewer: ViewerNow


class ViewsChanged(_Model):
    """The outputs where it is another than before."""

    nodes: list[str]


class Invited(_Model):
    """An invitation: whoever has one of the links may watch."""

    id: str = Field(description="What takes it back.")
    name: str | None
    ends: str = Field(description="When it ends, in UTC.")
    links: list[str]


class InvitationRevoked(_Model):
    """An invitation does not count any more."""

    ended: int = Field(description="How many were sent away because of it.")


class Stopping(_Model):
    """It is ending."""

    state: Literal["draining", "stopping"]


class Alive(_Model):
    """The process answers."""

    alive: bool


class Ready(_Model):
    """Whether the graph runs and no node of it has failed; the details are for the owner."""

    ready: bool
    state: str | None = None
    difference: str | None = None
    failed: list[str] | None = None


class Finding(_Model):
    """A finding about a graph file."""

    code: str
    severity: str
    file: str | None
    line: int | None
    column: int | None
    title: str
    message: str
    hint: str | None
    related: list[dict[str, Any]]


class Problem(_Model):
    """Why it was not done, and the way out."""

    error: str
    hint: str | None = None
    diagnostics: list[Finding] | None = None
