// werift as WHEP player: node werift.js URL PICTURES
"use strict";
const werift = require("werift");
const { Pictures, iceServers, offer, leave, run } = require("./common.js");

run(async (url, wanted) => {
  const pc = new werift.RTCPeerConnection({
    iceServers: iceServers().map((urls) => ({ urls })),
    iceAdditionalHostAddresses: ["127.0.0.1"],
    codecs: { video: [werift.useH264()] },
    headerExtensions: { video: [werift.useSdesMid()] },
  });
  const transceiver = pc.addTransceiver("video", { direction: "recvonly" });
  let ssrc;
  const pictures = new Pictures(wanted, () => transceiver.receiver.sendRtcpPLI(ssrc));
  transceiver.onTrack.subscribe((track) => {
    track.onReceiveRtp.subscribe(({ header, payload }) => {
      ssrc ??= header.ssrc;
      pictures.take({ sequenceNumber: header.sequenceNumber, timestamp: header.timestamp, marker: header.marker, payload });
    });
  });
  await pc.setLocalDescription(await pc.createOffer());
  const { answer, session } = await offer(url, pc.localDescription.sdp);
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  await pictures.done;
  return { status: 201, ...pictures.report(), left: await leave(session) };
});
