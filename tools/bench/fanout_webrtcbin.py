"""GStreamer's webrtcbin as a sender of the fan-out benchmark: python3 fanout_webrtcbin.py VIEWERS

Runs in the system's Python, which has GObject introspection. The stream is packetised once; each viewer has a queue
that leaks and a webrtcbin of its own, as GStreamer's examples have it. All are there before the first picture: a branch
that is added to a pipeline under way stops it now and then.
"""

import json
import sys
import threading
import time

import gi
from fanout_stream import FPS, PAYLOAD, pictures

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402

RTP = "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,packetization-mode=(string)1"
SOURCE = "video/x-h264,stream-format=byte-stream,alignment=au,width=1280,height=720,framerate=30/1"


class Server:
    """One pipeline for so many viewers."""

    def __init__(self, count):
        branches = " ".join(
            f"t. ! queue leaky=downstream ! {RTP} ! webrtcbin name=viewer{number} bundle-policy=max-bundle"
            for number in range(count)
        )
        self.pipeline = Gst.parse_launch(
            f"appsrc name=source is-live=true do-timestamp=true format=time caps={SOURCE} "
            f"! rtph264pay pt=96 mtu={PAYLOAD + 12} ! {RTP} ! tee name=t {branches}"
        )
        self.count, self.joined = count, 0
        self.pipeline.set_state(Gst.State.PLAYING)

    def answer(self, text):
        """Takes the offer of the next viewer."""
        viewer = self.pipeline.get_by_name(f"viewer{self.joined}")
        gathered = threading.Event()

        def look(*_):
            if viewer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
                gathered.set()

        viewer.connect("notify::ice-gathering-state", look)
        _, message = GstSdp.SDPMessage.new_from_text(text)
        offer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.OFFER, message)
        self.ask(viewer, "set-remote-description", offer)
        reply = self.ask(viewer, "create-answer", None)
        self.ask(viewer, "set-local-description", reply.get_value("answer"))
        look()
        if not gathered.wait(10):
            raise SystemExit("webrtcbin found no candidates")
        self.joined += 1
        if self.joined == self.count:
            threading.Thread(target=self.play, daemon=True).start()
        return viewer.get_property("local-description").sdp.as_text()

    def ask(self, viewer, signal, value):
        """Emits a signal, and waits for what comes of it."""
        promise = Gst.Promise.new()
        viewer.emit(signal, value, promise)
        promise.wait()
        return promise.get_reply()

    def play(self):
        """Gives the pictures when they are due."""
        source, units = self.pipeline.get_by_name("source"), [data for data, _ in pictures()]
        began, number = time.monotonic(), 0
        while True:
            time.sleep(max(0.0, began + number / FPS - time.monotonic()))
            source.emit("push-buffer", Gst.Buffer.new_wrapped(units[number % len(units)]))
            number += 1


Gst.init(None)
server = Server(int(sys.argv[1]))
for line in sys.stdin:
    print(json.dumps({"answer": server.answer(json.loads(line)["offer"])}), flush=True)
server.pipeline.set_state(Gst.State.NULL)
