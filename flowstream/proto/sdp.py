"""Offers of viewers, and our answers to them (RFC 8866, RFC 9429, draft-ietf-wish-whep).

The answer is always the same in kind: everything bundled on one transport, DTLS server, one stream of pictures and one
of Opus sent, data channels where they are offered, every other media section refused in its place. All picture codecs
that both ends know are in the answer (H.264, VP8, VP9, AV1), so that a stream may go on in another one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from flowstream.proto.candidates import Candidate, candidate_lines
from flowstream.proto.rtp import CAPTURE_TIME_URI, MID_URI, PLAYOUT_DELAY_URI, TRANSPORT_NUMBER_URI
from flowstream.proto.sdpdata import FORMAT, DataSection, data_attributes, find_data

MAX_SIZE: Final = 64 * 1024
"""Longest offer that is read, in characters; a browser's has 5 to 10 thousand."""

MAX_MEDIA: Final = 32
"""Most media sections of an offer."""

H264_PREFERENCE: Final = ("42e0", "4200", "4d00", "6400", "640c")
"""Profiles to fall back on, by the first two bytes of profile-level-id: constrained baseline first."""

_PROFILES: Final = {"vp9": "profile-id", "av1": "profile"}
"""The parameter that names the profile; 0 is the one that every encoder here makes, and what is meant by none."""

_TOKEN: Final = frozenset("!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz{|}~")
_ICE: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
_DIGESTS: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}

VIDEO_CODECS: Final = ("h264", "vp8", "vp9", "av1")
"""What can be sent, the preferred ones first, by FFmpeg's names."""

Kind = Literal["video", "audio"]


class SdpError(ValueError):
    """The text is no offer that a viewer may make: malformed, or without what WebRTC demands."""


class NothingInCommonError(SdpError):
    """A well-formed offer that has no format we can send."""


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of a media section: its rtpmap, its fmtp parameters (keys in lower case), its rtcp-fb."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)
    feedback: frozenset[str] = frozenset()

    def __str__(self) -> str:
        profile = self.parameters.get("profile-level-id")
        if profile is None:
            return self.name
        return f"{self.name} {profile} mode {self.parameters.get('packetization-mode', '0')}"


@dataclass(frozen=True, slots=True)
class MediaSection:
    """One m-line of an offer with what belongs to it, session-level values filled in."""

    kind: str
    protocol: str
    tokens: tuple[str, ...]
    mid: str
    direction: str
    formats: tuple[Format, ...]
    extensions: Mapping[str, int]
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    setup: str
    rtcp_mux: bool
    data: DataSection | None = None
    candidates: tuple[str, ...] = ()
    """What followed a=candidate: on each such line."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A parsed offer; ``bundle`` has the mids of its BUNDLE group, ``is_lite`` says that its end sends no checks."""

    media: tuple[MediaSection, ...]
    bundle: tuple[str, ...]
    is_lite: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A codec, by FFmpeg's name, with the payload types under which the offer takes it."""

    codec: str
    format: Format
    rtx_payload_type: int | None


@dataclass(frozen=True, slots=True)
class Track:
    """What one accepted media section may send, the preferred codec first.

    Payload types and header extension ids are the offer's. What is sent a second time under the same number, because
    the viewer has no RTX, has neither a transport-wide number nor a capture time: SRTP demands that nothing in it
    changes.
    """

    kind: Kind
    mid: str
    choices: tuple[Choice, ...]
    mid_extension: int | None
    playout_delay_extension: int | None
    transport_number_extension: int | None = None
    capture_time_extension: int | None = None

    def feedback(self, choice: Choice) -> tuple[str, ...]:
        """The kinds of RTCP feedback that the answer asks for, of one codec, in its order."""
        wanted = [*(("nack", "nack pli", "ccm fir") if self.kind == "video" else ())]
        wanted.append("goog-remb" if self.transport_number_extension is None else "transport-cc")
        return tuple(each for each in wanted if each in choice.format.feedback)

    @property
    def has_rtx(self) -> bool:
        """Whether packets of any codec can be sent again on a stream of their own."""
        return any(choice.rtx_payload_type is not None for choice in self.choices)

    def choice(self, codec: str) -> Choice | None:
        """How a codec is sent; None if the offer does not take it."""
        return next((choice for choice in self.choices if choice.codec == codec), None)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What offer and sender have in common: the tracks by index of their media section, and the peer's transport.

    ``data_index`` is that of the section of data channels, None without them.
    """

    offer: Offer
    tracks: Mapping[int, Track]
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    data_index: int | None = None
    candidates: tuple[str, ...] = ()

    @property
    def mids(self) -> tuple[str, ...]:
        """The sections that are taken, in their order."""
        taken = {*self.tracks, self.data_index}
        return tuple(section.mid for index, section in enumerate(self.offer.media) if index in taken)

    @property
    def data(self) -> DataSection | None:
        """What the offer says of data channels; None when there are none."""
        return None if self.data_index is None else self.offer.media[self.data_index].data

    def track(self, kind: Kind) -> Track | None:
        """The track of a kind, or None."""
        return next((track for track in self.tracks.values() if track.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Transport:
    """Our half of the transport: ICE credentials, (algorithm, value) of the certificate, candidates, the preferred
    ones first; ``is_lite`` when we send no checks."""

    ufrag: str
    password: str
    fingerprint: tuple[str, str]
    candidates: Sequence[Candidate]
    is_lite: bool = True


@dataclass(frozen=True, slots=True)
class Stream:
    """The synchronization sources of a track: its own, and its retransmissions' (None without RTX)."""

    ssrc: int
    rtx_ssrc: int | None


@dataclass(slots=True)
class _Lines:
    """Attributes of a section: every value of each name, in order."""

    line: str
    number: int
    attributes: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        values = self.attributes.get(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return self.attributes.get(name, [])


def parse_offer(text: str) -> Offer:
    """Read an offer.

    Lines may end in LF alone. Attributes that are not needed are not looked at.

    Raises:
        SdpError: naming the line.
    """
    if len(text) > MAX_SIZE:
        raise SdpError(f"an offer of {len(text)} characters is too long")
    session, sections = _split(text)
    media = tuple(_parse_section(section, session) for section in sections)
    mids = [section.mid for section in media]
    if len(set(mids)) != len(mids):
        raise SdpError("two media sections have the same a=mid")
    bundle: tuple[str, ...] = ()
    for group in session.all("group"):
        words = group.split()
        if words[:1] == ["BUNDLE"]:
            bundle = tuple(words[1:])
    unknown = [mid for mid in bundle if mid not in mids]
    if unknown:
        raise SdpError(f"the BUNDLE group names {unknown[0]!r}, which is no media section")
    return Offer(media, bundle, is_lite=session.one("ice-lite") is not None)


def agree(
    offer: Offer, *, needed: Collection[Kind], video_codecs: Sequence[str] = (), profile_level_id: str | None = None
) -> Agreement:
    """Choose what to send.

    The first section of each kind that receives is taken. ``needed`` kinds must have a format in common when they are
    offered at all; others are refused in their place. Data channels are taken where they share the tracks' transport.
    ``video_codecs`` are those of the streams that there are, of
    `VIDEO_CODECS`, one of which must be in common; empty while none is known. ``profile_level_id`` is the H.264
    stream's own, if known.

    Raises:
        NothingInCommonError: listing what was offered and what we have.
        SdpError: no section can be answered on one transport.
    """
    tracks: dict[int, Track] = {}
    misses: list[str] = []
    taken: set[str] = set()
    for index, section in enumerate(offer.media):
        if section.kind not in ("video", "audio") or section.kind in taken or not _receives(section):
            continue
        track = _choose(section, video_codecs, profile_level_id)
        if track is not None:
            tracks[index] = track
            taken.add(section.kind)
        elif section.kind in needed:
            misses.append(_describe_miss(section, video_codecs))
    if misses:
        raise NothingInCommonError("; ".join(misses))
    if not tracks:
        kinds = " and ".join(sorted(needed))
        raise NothingInCommonError(f"the offer has no media section that receives {kinds}")
    if any(track.transport_number_extension is None for track in tracks.values() if track.kind == "video"):
        # Numbers that only the sound carries would say next to nothing of the path.
        tracks = {index: replace(track, transport_number_extension=None) for index, track in tracks.items()}
    chosen = [offer.media[index] for index in tracks]
    if len(chosen) > 1 and any(section.mid not in offer.bundle for section in chosen):
        raise SdpError("the media sections are not in one BUNDLE group")
    first = _transport_section(offer, chosen)
    for section in chosen:
        if not section.rtcp_mux:
            raise SdpError(f"media section {section.mid!r} has no a=rtcp-mux")
    if not first.ufrag or not first.password:
        raise SdpError(f"media section {first.mid!r} has no a=ice-ufrag and a=ice-pwd")
    if not first.fingerprints:
        raise SdpError(f"media section {first.mid!r} has no a=fingerprint with {', '.join(_DIGESTS)}")
    if first.setup == "passive":
        raise SdpError("the offer has a=setup:passive, but this end answers as DTLS server: offer actpass or active")
    data_index = None
    if chosen[0].mid in offer.bundle:
        data_index = next((i for i, each in enumerate(offer.media) if each.data and each.mid in offer.bundle), None)
    return Agreement(offer, tracks, first.ufrag, first.password, first.fingerprints, data_index, first.candidates)


def write_answer(
    agreement: Agreement, transport: Transport, streams: Mapping[Kind, Stream], *, session_id: int, cname: str
) -> str:
    """The answer's text, lines ended by CRLF.

    ``session_id`` is a random number below 2**62; ``cname`` ties the streams together for audio and video sync.
    """
    address = transport.candidates[0].address[0] if transport.candidates else "0.0.0.0"
    lines = [
        "v=0",
        f"o=- {session_id} 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        ice_line(transport),
        f"a=group:BUNDLE {' '.join(agreement.mids)}",
        "a=extmap-allow-mixed",
        f"a=msid-semantic: WMS {cname}",
    ]
    for index, section in enumerate(agreement.offer.media):
        track = agreement.tracks.get(index)
        if index == agreement.data_index:
            lines += [
                *_connection("application", section.protocol, FORMAT, transport, address=address),
                f"a=mid:{section.mid}",
                *data_attributes(),
                *_transport_lines(transport),
            ]
        elif track is None:
            lines += [
                f"m={section.kind} 0 {section.protocol} {' '.join(section.tokens)}",
                "c=IN IP4 0.0.0.0",
                f"a=mid:{section.mid}",
                "a=inactive",
            ]
        else:
            lines += _write_section(track, section, transport, streams[track.kind], address=address, cname=cname)
    return "\r\n".join(lines) + "\r\n"


def is_ice_text(text: str, least: int) -> bool:
    """Whether it can be a username fragment (``least`` 4) or a password (22) of ICE (RFC 8839 section 5.4)."""
    return least <= len(text) <= 256 and set(text) <= _ICE


def ice_line(transport: Transport) -> str:
    """What kind of agent we are: a lite one, or a full one of RFC 8445 (section 10)."""
    return "a=ice-lite" if transport.is_lite else "a=ice-options:ice2"


def _write_section(
    track: Track, section: MediaSection, transport: Transport, stream: Stream, *, address: str, cname: str
) -> list[str]:
    numbers = " ".join(
        str(number)
        for choice in track.choices
        for number in (choice.format.payload_type, choice.rtx_payload_type)
        if number is not None
    )
    lines = [
        *_connection(track.kind, section.protocol, numbers, transport, address=address),
        "a=rtcp-mux",
        "a=rtcp-rsize",
        f"a=mid:{track.mid}",
        "a=sendonly",
        f"a=msid:{cname} {track.kind}",
    ]
    if track.mid_extension is not None:
        lines.append(f"a=extmap:{track.mid_extension} {MID_URI}")
    for extension, uri in (
        (track.playout_delay_extension, PLAYOUT_DELAY_URI),
        (track.transport_number_extension, TRANSPORT_NUMBER_URI),
        (track.capture_time_extension, CAPTURE_TIME_URI),
    ):
        if extension is not None:
            lines.append(f"a=extmap:{extension} {uri}")
    for choice in track.choices:
        lines += _write_choice(choice, track.feedback(choice))
    if track.has_rtx and stream.rtx_ssrc is not None:
        lines += [
            f"a=ssrc-group:FID {stream.ssrc} {stream.rtx_ssrc}",
            f"a=ssrc:{stream.ssrc} cname:{cname}",
            f"a=ssrc:{stream.rtx_ssrc} cname:{cname}",
        ]
    else:
        lines.append(f"a=ssrc:{stream.ssrc} cname:{cname}")
    return lines + _transport_lines(transport)


def _connection(kind: str, protocol: str, formats: str, transport: Transport, *, address: str) -> list[str]:
    port = transport.candidates[0].address[1] if transport.candidates else 9
    return [f"m={kind} {port} {protocol} {formats}", f"c=IN {'IP6' if ':' in address else 'IP4'} {address}"]


def _transport_lines(transport: Transport) -> list[str]:
    algorithm, value = transport.fingerprint
    return [
        f"a=ice-ufrag:{transport.ufrag}",
        f"a=ice-pwd:{transport.password}",
        f"a=fingerprint:{algorithm} {value}",
        "a=setup:passive",
        *candidate_lines(transport.candidates),
    ]


def _write_choice(choice: Choice, feedback: Sequence[str]) -> list[str]:
    number, clock_rate = choice.format.payload_type, choice.format.clock_rate
    if choice.codec == "opus":
        lines = [f"a=rtpmap:{number} opus/48000/2", f"a=fmtp:{number} minptime=10;useinbandfec=1;stereo=1"]
    else:
        lines = [f"a=rtpmap:{number} {choice.codec.upper()}/{clock_rate}"]
    if choice.codec == "h264":
        profile = choice.format.parameters["profile-level-id"]
        lines.append(f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}")
    elif choice.codec in _PROFILES:
        lines.append(f"a=fmtp:{number} {_PROFILES[choice.codec]}=0")
    lines += [f"a=rtcp-fb:{number} {each}" for each in feedback]
    if choice.rtx_payload_type is not None:
        lines += [
            f"a=rtpmap:{choice.rtx_payload_type} rtx/{clock_rate}",
            f"a=fmtp:{choice.rtx_payload_type} apt={number}",
        ]
    return lines


def _split(text: str) -> tuple[_Lines, list[_Lines]]:
    session = _Lines("v=0", 1)
    sections: list[_Lines] = []
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines[0] != "v=0":
        raise SdpError("line 1: an offer begins with v=0")
    for number, line in enumerate(lines[1:], 2):
        if len(line) < 2 or line[1] != "=" or not line[0].isalpha() or not line.isprintable():
            raise SdpError(f"line {number}: {line[:40]!r} is not of the form x=...")
        if line[0] == "m":
            if len(sections) == MAX_MEDIA:
                raise SdpError(f"line {number}: more than {MAX_MEDIA} media sections")
            sections.append(_Lines(line[2:], number))
        elif line[0] == "a":
            name, _, value = line[2:].partition(":")
            (sections[-1] if sections else session).attributes.setdefault(name, []).append(value)
    if not sections:
        raise SdpError("the offer has no media section")
    return session, sections


def _parse_section(lines: _Lines, session: _Lines) -> MediaSection:
    words = lines.line.split()
    where = f"line {lines.number}"
    if len(words) < 4 or not set(words[0]) <= _TOKEN:
        raise SdpError(f"{where}: 'm={lines.line[:40]}' is not of the form m=kind port protocol formats")
    kind, protocol, tokens = words[0], words[2], tuple(words[3:])
    port = _number(words[1].partition("/")[0], 65535, f"{where}: port")
    mid = lines.one("mid")
    if mid is None or not mid or not set(mid) <= _TOKEN or len(mid) > 16:
        raise SdpError(f"{where}: the media section has no usable a=mid")
    ufrag = lines.one("ice-ufrag") or session.one("ice-ufrag") or ""
    password = lines.one("ice-pwd") or session.one("ice-pwd") or ""
    for name, value, least in (("ice-ufrag", ufrag, 4), ("ice-pwd", password, 22)):
        if value and not is_ice_text(value, least):
            raise SdpError(f"{where}: a={name} is not {least} to 256 letters, digits, + or /")
    directions = [name for name in _DIRECTIONS if name in lines.attributes]
    directions += [name for name in _DIRECTIONS if name in session.attributes] or ["sendrecv"]
    is_off = port == 0 and "bundle-only" not in lines.attributes  # the offerer has switched this section off
    if is_off:
        directions.insert(0, "inactive")
    setup = lines.one("setup") or session.one("setup") or "actpass"
    if setup not in ("actpass", "active", "passive"):
        raise SdpError(f"{where}: a=setup:{setup[:20]} cannot be answered")
    is_rtp = kind in ("video", "audio") and "RTP/" in protocol
    return MediaSection(
        kind=kind,
        protocol=protocol,
        tokens=tokens,
        mid=mid,
        direction=directions[0],
        formats=_parse_formats(lines, tokens, where) if is_rtp else (),
        extensions=_parse_extensions(lines, where),
        ufrag=ufrag,
        password=password,
        fingerprints=_parse_fingerprints(lines.all("fingerprint") or session.all("fingerprint"), where),
        setup=setup,
        rtcp_mux="rtcp-mux" in lines.attributes or "rtcp-mux-only" in lines.attributes,
        candidates=tuple(lines.all("candidate")),
        data=find_data(protocol, tokens, lines.one) if kind == "application" and not is_off else None,
    )


def _parse_formats(lines: _Lines, tokens: tuple[str, ...], where: str) -> tuple[Format, ...]:
    maps: dict[int, str] = {}
    for value in lines.all("rtpmap"):
        first, _, encoding = value.partition(" ")
        maps[_number(first, 127, f"{where}: a=rtpmap payload type")] = encoding.strip()
    parameters: dict[int, dict[str, str]] = {}
    for value in lines.all("fmtp"):
        first, _, rest = value.partition(" ")
        pairs = (pair.strip().partition("=") for pair in rest.split(";") if pair.strip())
        parameters[_number(first, 127, f"{where}: a=fmtp payload type")] = {
            key.strip().lower(): item.strip() for key, _, item in pairs
        }
    feedback: dict[int | None, set[str]] = {}
    for value in lines.all("rtcp-fb"):
        first, _, rest = value.partition(" ")
        key = None if first == "*" else _number(first, 127, f"{where}: a=rtcp-fb payload type")
        feedback.setdefault(key, set()).add(" ".join(rest.split()))
    formats: list[Format] = []
    for token in tokens:
        number = _number(token, 127, f"{where}: payload type")
        if number not in maps:
            continue
        name, _, rest = maps[number].partition("/")
        rate, _, channels = rest.partition("/")
        formats.append(
            Format(
                payload_type=number,
                name=name,
                clock_rate=_number(rate, 10_000_000, f"{where}: clock rate of payload type {number}"),
                channels=_number(channels, 255, f"{where}: channels of payload type {number}") if channels else 1,
                parameters=parameters.get(number, {}),
                feedback=frozenset(feedback.get(number, set()) | feedback.get(None, set())),
            )
        )
    return tuple(formats)


def _parse_extensions(lines: _Lines, where: str) -> dict[str, int]:
    extensions: dict[str, int] = {}
    for value in lines.all("extmap"):
        words = value.split()
        if len(words) < 2:
            raise SdpError(f"{where}: a=extmap:{value[:40]} has no URI")
        number = _number(words[0].partition("/")[0], 0xFFFF, f"{where}: a=extmap id")
        extensions.setdefault(words[1], number)
    return extensions


def _parse_fingerprints(values: list[str], where: str) -> tuple[tuple[str, str], ...]:
    fingerprints: list[tuple[str, str]] = []
    for value in values:
        algorithm, _, digits = value.partition(" ")
        size = _DIGESTS.get(algorithm.lower())
        if size is None:
            continue
        octets = digits.strip().split(":")
        if len(octets) != size or any(len(octet) != 2 or not _is_hex(octet) for octet in octets):
            raise SdpError(f"{where}: a=fingerprint is not {size} pairs of hex digits for {algorithm}")
        fingerprints.append((algorithm.lower(), digits.strip().upper()))
    return tuple(fingerprints)


def _receives(section: MediaSection) -> bool:
    return section.direction in ("recvonly", "sendrecv") and section.protocol == "UDP/TLS/RTP/SAVPF"


def _choose(section: MediaSection, video_codecs: Sequence[str], profile_level_id: str | None) -> Track | None:
    found: dict[str, Format | None]
    if section.kind == "audio":
        found = {"opus": _choose_opus(section)}
    else:
        order = sorted(VIDEO_CODECS, key=lambda codec: codec not in video_codecs)
        found = {codec: _choose_video(section, codec, profile_level_id) for codec in order}
        if video_codecs and all(found.get(codec) is None for codec in video_codecs):
            return None
    choices = tuple(
        Choice(codec, chosen, _rtx(section, chosen)) for codec, chosen in found.items() if chosen is not None
    )
    if not choices:
        return None
    # What is sent twice under one number must not change: no extension that says something of the moment.
    is_resent_as_it_was = section.kind == "video" and any(
        "nack" in choice.format.feedback and choice.rtx_payload_type is None for choice in choices
    )
    has_numbers = not is_resent_as_it_was and all("transport-cc" in choice.format.feedback for choice in choices)
    return Track(
        kind="video" if section.kind == "video" else "audio",
        mid=section.mid,
        choices=choices,
        mid_extension=_extension(section, MID_URI),
        playout_delay_extension=_extension(section, PLAYOUT_DELAY_URI) if section.kind == "video" else None,
        transport_number_extension=_extension(section, TRANSPORT_NUMBER_URI) if has_numbers else None,
        capture_time_extension=None if is_resent_as_it_was else _extension(section, CAPTURE_TIME_URI),
    )


def _rtx(section: MediaSection, chosen: Format) -> int | None:
    if section.kind == "audio" or "nack" not in chosen.feedback:
        return None
    return next(
        (
            candidate.payload_type
            for candidate in section.formats
            if candidate.name.lower() == "rtx" and candidate.parameters.get("apt") == str(chosen.payload_type)
        ),
        None,
    )


def _choose_video(section: MediaSection, codec: str, profile_level_id: str | None) -> Format | None:
    if codec == "h264":
        return _choose_h264(section, profile_level_id)
    profile = _PROFILES.get(codec, "")
    return next(
        (
            candidate
            for candidate in section.formats
            if candidate.name.lower() == codec
            and candidate.clock_rate == 90_000
            and candidate.parameters.get(profile, "0") == "0"
        ),
        None,
    )


def _extension(section: MediaSection, uri: str) -> int | None:
    number = section.extensions.get(uri)
    return number if number is not None and 1 <= number <= 14 else None


def _choose_h264(section: MediaSection, profile_level_id: str | None) -> Format | None:
    usable: dict[str, Format] = {}
    for candidate in section.formats:
        profile = candidate.parameters.get("profile-level-id", "").lower()
        if candidate.name.upper() != "H264" or candidate.clock_rate != 90_000 or len(profile) != 6:
            continue
        if candidate.parameters.get("packetization-mode") == "1" and _is_hex(profile):
            usable.setdefault(_profile(profile), candidate)
    own = (_profile(profile_level_id.lower()),) if profile_level_id else ()
    return next((usable[profile] for profile in (*own, *H264_PREFERENCE) if profile in usable), None)


def _choose_opus(section: MediaSection) -> Format | None:
    return next(
        (
            candidate
            for candidate in section.formats
            if candidate.name.lower() == "opus" and candidate.clock_rate == 48_000 and candidate.channels == 2
        ),
        None,
    )


def _profile(profile_level_id: str) -> str:
    """Profile and constraints; baseline with constraint_set1 is constrained baseline whatever else is set (RFC 6184
    table 5)."""
    profile, constraints = profile_level_id[:2], int(profile_level_id[2:4], 16)
    if profile == "42":
        return "42e0" if constraints & 0x40 else "4200"
    if profile in ("4d", "58") and constraints & 0x80 and constraints & 0x40:
        return "42e0"
    if profile == "64":
        return "640c" if constraints & 0x0C == 0x0C else "6400"
    return profile + "00"


def _describe_miss(section: MediaSection, video_codecs: Sequence[str]) -> str:
    codecs = [codec for codec in VIDEO_CODECS if codec in video_codecs or not video_codecs]
    names = [codec.upper() + " with packetization-mode 1" * (codec == "h264") for codec in codecs]
    ours = " or ".join(names) if section.kind == "video" else "opus/48000/2"
    helpers = ("rtx", "red", "ulpfec", "flexfec-03", "telephone-event", "cn")
    names = [str(candidate) for candidate in section.formats if candidate.name.lower() not in helpers]
    offered = ", ".join(dict.fromkeys(names)) or "no format"
    return f"no {section.kind} format in common: the offer has {offered}; this end sends {ours}"


def _transport_section(offer: Offer, chosen: list[MediaSection]) -> MediaSection:
    """The section whose transport the bundle uses: the first of the group (RFC 9143 section 7.2.1)."""
    if offer.bundle and chosen[0].mid in offer.bundle:
        first = next(section for section in offer.media if section.mid == offer.bundle[0])
        if first.ufrag and first.fingerprints:
            return first
    return chosen[0]


def _number(text: str, most: int, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 8) or int(text) > most:
        raise SdpError(f"{what} {text[:20]!r} is not a number up to {most}")
    return int(text)


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)
