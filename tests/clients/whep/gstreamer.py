"""GStreamer's webrtcbin as WHEP player: python3 gstreamer.py URL PICTURES [h264 | vp8]

Runs in the system's Python, which has GObject introspection; decodes what comes.
"""

import json
import os
import sys
import urllib.request
from urllib.parse import urljoin

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

CAPS = {
    "h264": "application/x-rtp,media=video,encoding-name=H264,payload=97,clock-rate=90000,packetization-mode=(string)1,"
    "profile-level-id=(string)42e01f,rtcp-fb-nack=(boolean)true,rtcp-fb-nack-pli=(boolean)true",
    "vp8": "application/x-rtp,media=video,encoding-name=VP8,payload=97,clock-rate=90000,rtcp-fb-nack=(boolean)true,"
    "rtcp-fb-nack-pli=(boolean)true",
}
DECODER = {"h264": "rtph264depay ! h264parse ! openh264dec", "vp8": "rtpvp8depay ! vp8dec"}


class Player:
    """One session, from its offer until it has seen what it wants."""

    def __init__(self, url, wanted, codec="h264"):
        self.url, self.wanted, self.codec = url, wanted, codec
        self.loop = GLib.MainLoop()
        self.status, self.session, self.first_is_keyframe = 0, "", None
        self.pictures = self.keyframes = self.keyframes_before = 0
        self.pipeline = Gst.Pipeline()
        self.bin = Gst.ElementFactory.make("webrtcbin")
        self.bin.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.bin)
        self.bin.connect("pad-added", self.on_pad)
        self.bin.connect("notify::ice-gathering-state", self.on_gathering)
        self.bin.connect("on-negotiation-needed", self.on_needed)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)

    def run(self):
        """Plays; gives the report."""
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        self.bin.emit("add-transceiver", direction, Gst.Caps.from_string(CAPS[self.codec]))
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        left = self.request(urljoin(self.url, self.session), "DELETE")[0]
        self.pipeline.set_state(Gst.State.NULL)
        return {
            "status": self.status,
            "pictures": self.pictures,
            "first_is_keyframe": self.first_is_keyframe,
            "keyframes_asked": self.keyframes - self.keyframes_before,
            "left": left,
        }

    def request(self, url, method, body=None):
        """Status, headers and text."""
        headers = {"Content-Type": "application/sdp"} if body else {}
        asked = urllib.request.Request(url, body and body.encode(), headers, method=method)
        with urllib.request.urlopen(asked) as response:
            return response.status, response.headers, response.read().decode()

    def on_needed(self, _):
        self.bin.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer))

    def on_offer(self, promise):
        reply = promise.get_reply()  # the offer is part of it and goes with it
        self.bin.emit("set-local-description", reply.get_value("offer"), None)

    def on_gathering(self, *_):
        if self.bin.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.offer)

    def offer(self):
        sdp = self.bin.get_property("local-description").sdp.as_text()
        self.status, headers, answer = self.request(self.url, "POST", sdp)
        self.session = headers["Location"]
        _, message = GstSdp.SDPMessage.new_from_text(answer)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.bin.emit("set-remote-description", description, None)
        return False

    def on_pad(self, _, pad):
        decoder = Gst.parse_bin_from_description(f"{DECODER[self.codec]} ! fakesink name=end sync=false", True)
        depay = next(each for each in decoder.children if "depay" in each.get_name())
        depay.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self.on_unit)
        decoder.get_by_name("end").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, self.on_picture)
        self.pipeline.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))
        self.source = pad

    def on_unit(self, _, info):
        is_key = not info.get_buffer().has_flags(Gst.BufferFlags.DELTA_UNIT)
        if self.first_is_keyframe is None:
            self.first_is_keyframe = is_key
        self.keyframes += is_key
        return Gst.PadProbeReturn.OK

    def on_picture(self, *_):
        self.pictures += 1
        if self.pictures == self.wanted // 2:
            self.keyframes_before = self.keyframes
            wish = Gst.Structure.new_from_string("GstForceKeyUnit, all-headers=(boolean)true")
            self.source.send_event(Gst.Event.new_custom(Gst.EventType.CUSTOM_UPSTREAM, wish))
        if self.pictures >= self.wanted and self.keyframes > self.keyframes_before:
            GLib.idle_add(self.loop.quit)
        return Gst.PadProbeReturn.OK

    def on_error(self, _, message):
        sys.stderr.write(f"{message.parse_error()}\n")
        sys.stderr.flush()
        os._exit(1)  # from a callback of GLib nothing is raised


if __name__ == "__main__":
    Gst.init(None)
    sys.stdout.write(json.dumps(Player(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]).run()))
