// @roamhq/wrtc (libwebrtc, without H.264) as WHEP player: node wrtc.js URL PICTURES
"use strict";
const wrtc = require("@roamhq/wrtc");
const { offer, leave, run } = require("./common.js");

run(async (url, wanted) => {
  const pc = new wrtc.RTCPeerConnection();
  pc.addTransceiver("video", { direction: "recvonly" });
  let pictures = 0, size = "";
  const done = new Promise((resolve) => {
    pc.ontrack = ({ track }) => {
      new wrtc.nonstandard.RTCVideoSink(track).onframe = ({ frame }) => {
        size = `${frame.width}x${frame.height}`;
        if ((pictures += 1) === wanted) resolve();
      };
    };
  });
  await pc.setLocalDescription(await pc.createOffer());
  const { answer, session } = await offer(url, pc.localDescription.sdp);
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  await done;
  return { status: 201, pictures, size, left: await leave(session) };
});
