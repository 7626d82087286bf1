"""Offers as browsers make them, and our answers."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.candidates import host_candidates
from flowstream.proto.sdp import (
    Kind,
    NothingInCommonError,
    SdpError,
    Stream,
    Transport,
    agree,
    parse_offer,
    write_answer,
)
from flowstream.proto.sdpdata import DataSection

OFFERS = Path(__file__).parent / "offers"
CHROMIUM = (OFFERS / "chromium.sdp").read_text()
FIREFOX = (OFFERS / "firefox.sdp").read_text()
BOTH: tuple[Kind, ...] = ("video", "audio")
AUDIO_ONLY: tuple[Kind, ...] = ("audio",)
TRANSPORT = Transport(
    ufrag="ours",
    password="p" * 24,
    fingerprint=("sha-256", "AA:BB"),
    candidates=host_candidates([("127.0.0.1", 8080), ("::1", 8081)]),
)
STREAMS: dict[Kind, Stream] = {"video": Stream(0x11111111, 0x22222222), "audio": Stream(0x33333333, None)}


def answer_to(text: str, *, video_codecs: tuple[str, ...] = ()) -> str:
    agreement = agree(parse_offer(text), needed=BOTH, video_codecs=video_codecs)
    return write_answer(agreement, TRANSPORT, STREAMS, session_id=42, cname="desk")


def sections_of(answer: str) -> list[list[str]]:
    return [part.splitlines() for part in re.split(r"(?=^m=)", answer, flags=re.MULTILINE)]


def test_chromium_gets_constrained_baseline_opus_and_rtx() -> None:
    agreement = agree(parse_offer(CHROMIUM), needed=BOTH)
    video, audio = agreement.track("video"), agreement.track("audio")
    assert video is not None
    assert audio is not None
    assert (video.mid, audio.mid) == ("0", "1")
    assert [choice.codec for choice in video.choices] == ["h264", "vp8", "vp9", "av1"]
    assert video.choices[0].format.payload_type == 108
    assert video.choices[0].rtx_payload_type == 109
    assert (video.mid_extension, video.playout_delay_extension) == (9, 5)
    assert audio.choices[0].format.payload_type == 111
    assert (audio.has_rtx, audio.playout_delay_extension) == (False, None)
    assert (agreement.ufrag, agreement.password) == re.search(r"ice-ufrag:(\S+)\na=ice-pwd:(\S+)", CHROMIUM).groups()  # type: ignore[union-attr]
    assert [algorithm for algorithm, _ in agreement.fingerprints] == ["sha-256"]


def test_firefox_gets_what_it_marks_as_bundle_only() -> None:
    agreement = agree(parse_offer(FIREFOX), needed=BOTH)
    video = agreement.track("video")
    assert video is not None
    assert (video.choices[0].format.payload_type, video.choices[0].rtx_payload_type) == (126, 127)
    assert (video.mid_extension, video.playout_delay_extension) == (3, 8)
    assert agreement.ufrag == "9b0c4f5e"


def test_the_whole_answer() -> None:
    offer = (
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE v\r\n"
        "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
        f"a=fingerprint:SHA-256 {':'.join(['0a'] * 32)}\r\na=setup:active\r\n"
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:v\r\na=recvonly\r\na=rtcp-mux\r\n"
        "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42001f\r\n"
        "a=rtcp-fb:* nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n"
    )
    assert answer_to(offer) == (
        "v=0\r\no=- 42 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE v\r\na=extmap-allow-mixed\r\n"
        "a=msid-semantic: WMS desk\r\n"
        "m=video 8080 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 127.0.0.1\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=mid:v\r\n"
        "a=sendonly\r\na=msid:desk video\r\na=rtpmap:96 H264/90000\r\n"
        "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n"
        "a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
        "a=ssrc-group:FID 286331153 572662306\r\na=ssrc:286331153 cname:desk\r\na=ssrc:572662306 cname:desk\r\n"
        f"a=ice-ufrag:ours\r\na=ice-pwd:{'p' * 24}\r\na=fingerprint:sha-256 AA:BB\r\na=setup:passive\r\n"
        "a=candidate:1 1 udp 2130706431 127.0.0.1 8080 typ host\r\n"
        "a=candidate:2 1 udp 2130706175 ::1 8081 typ host\r\na=end-of-candidates\r\n"
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:d\r\na=inactive\r\n"
    )


@pytest.mark.parametrize("text", [CHROMIUM, FIREFOX], ids=["chromium", "firefox"])
def test_every_section_is_answered_in_order(text: str) -> None:
    offered, answered = sections_of(text), sections_of(answer_to(text))
    assert [part[0].split()[0] for part in offered] == [part[0].split()[0] for part in answered]
    for section in answered[1:]:
        assert "a=sendonly" in section
        assert "a=setup:passive" in section


def test_a_second_video_section_is_refused_in_its_place() -> None:
    video = CHROMIUM[CHROMIUM.index("m=video") : CHROMIUM.index("m=audio")].replace("a=mid:0", "a=mid:2")
    first, *rest = sections_of(answer_to(CHROMIUM + video))
    assert "a=group:BUNDLE 0 1" in first
    assert [section[0].split()[:2] for section in rest] == [["m=video", "8080"], ["m=audio", "8080"], ["m=video", "0"]]
    assert "a=inactive" in rest[2]


@pytest.mark.parametrize(
    ("own", "payload_type"),
    [("42c01f", 108), ("42e028", 108), ("420029", 102), ("4d4028", 116), ("640028", 108), (None, 108)],
)
def test_the_profile_of_the_stream_is_preferred(own: str | None, payload_type: int) -> None:
    track = agree(parse_offer(CHROMIUM), needed=BOTH, profile_level_id=own).track("video")
    assert track is not None
    assert track.choices[0].format.payload_type == payload_type


def test_an_offer_without_our_codec_is_refused_with_both_sides_named() -> None:
    text = "\n".join(line for line in FIREFOX.split("\n") if ":126" not in line).replace(" 126 127", "")
    with pytest.raises(NothingInCommonError) as caught:
        agree(parse_offer(text), needed=BOTH, video_codecs=("h264",))
    assert str(caught.value) == (
        "no video format in common: the offer has VP8, VP9; this end sends H264 with packetization-mode 1"
    )
    # With only sound to send, the picture's section is merely refused in its place.
    agreement = agree(parse_offer(text), needed=AUDIO_ONLY, video_codecs=("h264",))
    assert agreement.track("video") is None
    assert agreement.track("audio") is not None


@pytest.mark.parametrize(("codec", "number"), [("h264", 108), ("vp8", 96), ("vp9", 98), ("av1", 45)])
def test_the_codec_of_the_stream_comes_first_and_the_others_stay_possible(codec: str, number: int) -> None:
    agreement = agree(parse_offer(CHROMIUM), needed=BOTH, video_codecs=(codec,))
    video = agreement.track("video")
    assert video is not None
    assert video.choices[0].codec == codec
    assert {choice.codec for choice in video.choices} == {"h264", "vp8", "vp9", "av1"}
    assert video.choices[0].format.payload_type == number
    assert video.choice("h264") == next(choice for choice in video.choices if choice.codec == "h264")
    assert video.choice("hevc") is None


def test_an_answer_names_every_codec_once_with_its_retransmissions_and_its_profile() -> None:
    video = sections_of(answer_to(CHROMIUM, video_codecs=("vp9",)))[1]
    names = [line.split()[1] for line in video if line.startswith("a=rtpmap:")]
    assert names == [
        "VP9/90000", "rtx/90000", "H264/90000", "rtx/90000", "VP8/90000", "rtx/90000", "AV1/90000", "rtx/90000",
    ]  # fmt: skip
    numbers = [line.partition(":")[2].split()[0] for line in video if line.startswith("a=rtpmap:")]
    assert video[0] == f"m=video 8080 UDP/TLS/RTP/SAVPF {' '.join(numbers)}"
    assert f"a=fmtp:{numbers[0]} profile-id=0" in video
    assert f"a=fmtp:{numbers[6]} profile=0" in video
    assert f"a=fmtp:{numbers[7]} apt={numbers[6]}" in video
    assert sum(line.startswith("a=ssrc-group:") for line in video) == 1


def test_of_a_codec_with_profiles_the_plain_one_is_meant() -> None:
    text = CHROMIUM.replace("profile-id=0", "profile-id=1")
    with pytest.raises(NothingInCommonError, match="this end sends VP9"):
        agree(parse_offer(text), needed=BOTH, video_codecs=("vp9",))
    video = agree(parse_offer(text), needed=BOTH).track("video")
    assert video is not None
    assert video.choice("vp9") is None


def test_a_miss_in_packetization_mode_is_visible() -> None:
    text = CHROMIUM.replace("packetization-mode=1", "packetization-mode=0")
    with pytest.raises(NothingInCommonError, match="H264 42e01f mode 0"):
        agree(parse_offer(text), needed=BOTH, video_codecs=("h264",))


def test_an_offer_that_receives_nothing_is_refused() -> None:
    with pytest.raises(NothingInCommonError, match="no media section that receives audio and video"):
        agree(parse_offer(CHROMIUM.replace("a=recvonly", "a=sendonly")), needed=BOTH)
    with pytest.raises(NothingInCommonError, match="no media section that receives"):
        agree(parse_offer(re.sub(r"^m=(\w+) 9", r"m=\1 0", CHROMIUM, flags=re.MULTILINE)), needed=BOTH)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("v=0", "v=1", "line 1"),
        ("t=0 0", "t", "line 4: 't' is not of the form"),
        ("t=0 0", "t=0\x00", "line 4"),
        ("m=audio 9", "m=audio nine", "port 'nine' is not a number up to 65535"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=audio 9 UDP/TLS/RTP/SAVPF x", "payload type 'x'"),
        ("a=mid:1", "a=mid:0", "same a=mid"),
        ("a=mid:1\n", "", "no usable a=mid"),
        ("BUNDLE 0 1", "BUNDLE 0 7", "names '7'"),
        ("opus/48000/2", "opus/fast/2", "clock rate of payload type 111 'fast'"),
        ("a=ice-pwd:", "a=ice-pwd:short\na=x:", "a=ice-pwd is not 22 to 256"),
        ("a=ice-ufrag:", "a=ice-ufrag:a b c d\na=x:", "a=ice-ufrag is not 4 to 256"),
        ("fingerprint:sha-256 ", "fingerprint:sha-256 9:", "a=fingerprint is not 32 pairs"),
        ("a=setup:actpass", "a=setup:holdconn", "a=setup:holdconn"),
        ("a=extmap:9 urn", "a=extmap:9\na=x:urn", "has no URI"),
    ],
)
def test_a_malformed_offer_is_refused_with_the_line(old: str, new: str, reason: str) -> None:
    assert old in CHROMIUM
    with pytest.raises(SdpError, match=re.escape(reason)):
        parse_offer(CHROMIUM.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("a=group:BUNDLE 0 1\n", "", "not in one BUNDLE group"),
        ("a=rtcp-mux\n", "", "no a=rtcp-mux"),
        ("a=ice-pwd:", "a=x:", "no a=ice-ufrag and a=ice-pwd"),
        ("a=fingerprint:sha-256", "a=fingerprint:md5", "no a=fingerprint with sha-256"),
        ("a=setup:actpass", "a=setup:passive", "offer actpass or active"),
    ],
)
def test_what_webrtc_demands_is_demanded(old: str, new: str, reason: str) -> None:
    with pytest.raises(SdpError, match=reason):
        agree(parse_offer(CHROMIUM.replace(old, new)), needed=BOTH)


def test_size_is_bounded() -> None:
    with pytest.raises(SdpError, match="too long"):
        parse_offer(CHROMIUM + "a=x\n" * 20_000)
    with pytest.raises(SdpError, match="more than 32 media sections"):
        parse_offer("v=0\n" + "m=audio 9 RTP/AVP 0\n" * 33)


LINES = CHROMIUM.split("\n")


@given(st.data())
def test_a_damaged_offer_is_answered_or_refused(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(lines) - 1))
        line = lines[position]
        cut = data.draw(st.integers(0, len(line)))
        lines[position] = line[:cut] + data.draw(st.text(max_size=6)) + line[cut + data.draw(st.integers(0, 6)) :]
    try:
        answer = answer_to("\n".join(lines))
    except SdpError:
        return
    assert len(sections_of(answer)) - 1 == sum(line.startswith("m=") for line in lines)


@given(st.text(max_size=200) | st.text(max_size=100).map(lambda tail: "v=0\nm=" + tail))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        agree(parse_offer(text), needed=BOTH)
    except SdpError:
        pass


DATA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:d\na=sctp-port:5000\n"


def with_data(data: str = DATA, *, bundled: bool = True, first: bool = False) -> str:
    """Chromium's offer with data channels."""
    text = re.sub(r"m=application.*?(?=m=|\Z)", "", CHROMIUM, flags=re.DOTALL)
    text = re.sub(r"a=group:BUNDLE .*", f"a=group:BUNDLE 0 1{' d' if bundled else ''}", text)
    if not first:
        return text + data
    head, _, rest = text.partition("m=video")
    transport = "".join(re.findall(r"a=(?:ice-ufrag|ice-pwd|fingerprint|setup):.*\n", rest)[:4])
    head = re.sub(r"BUNDLE .*", "BUNDLE d 0 1", head)
    return head + data + transport + "m=video" + rest


def test_data_channels_are_taken_on_the_same_transport() -> None:
    text = with_data(DATA + "a=max-message-size:262144\n")
    agreement = agree(parse_offer(text), needed=BOTH)
    assert agreement.data == DataSection(5000, 262_144)
    answer = answer_to(text)
    assert "a=group:BUNDLE 0 1 d\r\n" in answer
    assert sections_of(answer)[-1] == [
        "m=application 8080 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 127.0.0.1",
        "a=mid:d",
        "a=sctp-port:5000",
        "a=max-message-size:4096",
        "a=ice-ufrag:ours",
        f"a=ice-pwd:{'p' * 24}",
        "a=fingerprint:sha-256 AA:BB",
        "a=setup:passive",
        "a=candidate:1 1 udp 2130706431 127.0.0.1 8080 typ host",
        "a=candidate:2 1 udp 2130706175 ::1 8081 typ host",
        "a=end-of-candidates",
    ]


def test_data_channels_may_come_first_and_then_have_the_transport() -> None:
    text = with_data(first=True)
    agreement = agree(parse_offer(text), needed=BOTH)
    assert agreement.data == DataSection(5000, 65_536)
    assert agreement.mids == ("d", "0", "1")
    assert "a=group:BUNDLE d 0 1\r\n" in answer_to(text)


@pytest.mark.parametrize(
    "data",
    [
        DATA.replace("UDP/DTLS/SCTP", "DTLS/SCTP").replace("webrtc-datachannel", "5000"),  # of before RFC 8841
        DATA.replace("webrtc-datachannel", "other"),
        DATA.replace(":5000", ":0"),
        DATA.replace(":5000", ":65536"),
        DATA.replace("a=sctp-port:5000\n", ""),
        DATA + "a=max-message-size:many\n",
        DATA.replace("application 9", "application 0"),
    ],
)
def test_data_channels_that_make_no_sense_are_refused_in_their_place(data: str) -> None:
    text = with_data(data)
    assert agree(parse_offer(text), needed=BOTH).data is None
    answer = answer_to(text)
    assert "a=group:BUNDLE 0 1\r\n" in answer
    assert sections_of(answer)[-1][0].startswith("m=application 0 ")


def test_data_channels_on_a_transport_of_their_own_are_refused() -> None:
    text = with_data(bundled=False)
    assert agree(parse_offer(text), needed=BOTH).data is None
