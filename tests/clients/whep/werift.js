// werift as WHEP player: node werift.js URL PICTURES [RECORDS]
"use strict";
const werift = require("werift");
const { Channels, Pictures, iceServers, offer, leave, run } = require("./common.js");

run(async (url, wanted, records) => {
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
  const control = records ? pc.createDataChannel("flowstream") : null;
  const channels = new Channels(records, (text) => control.send(text));
  control?.onMessage.subscribe((text) => channels.hear(text));
  pc.onDataChannel.subscribe((channel) => {
    if (channel.label === "flowstream-data") channel.onMessage.subscribe((text) => channels.take(text));
  });
  await pc.setLocalDescription(await pc.createOffer());
  const { answer, session } = await offer(url, pc.localDescription.sdp);
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  await pictures.done;
  if (control) await channels.done;
  return { status: 201, ...pictures.report(), ...channels.report(), left: await leave(session) };
});
