// node-datachannel (libdatachannel) as WHEP player: node datachannel.js URL PICTURES [RECORDS]
"use strict";
const library = require("node-datachannel");
const { Channels, Pictures, iceServers, offer, leave, run } = require("./common.js");

const PAYLOAD_TYPE = 102;

// The parts of an RTP packet (RFC 3550 section 5.1) that count here; null for another payload type.
function parse(packet) {
  if ((packet[1] & 0x7f) !== PAYLOAD_TYPE) return null;
  let at = 12 + 4 * (packet[0] & 0x0f);
  if (packet[0] & 0x10) at += 4 + 4 * packet.readUInt16BE(at + 2);
  const padding = packet[0] & 0x20 ? packet[packet.length - 1] : 0;
  return {
    marker: Boolean(packet[1] & 0x80),
    sequenceNumber: packet.readUInt16BE(2),
    timestamp: packet.readUInt32BE(4),
    payload: packet.subarray(at, packet.length - padding),
  };
}

run(async (url, wanted, records) => {
  const pc = new library.PeerConnection("viewer", { iceServers: iceServers(), disableAutoNegotiation: true });
  const media = new library.Video("0", "RecvOnly");
  media.addH264Codec(PAYLOAD_TYPE, "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1");
  const track = pc.addTrack(media);
  const pictures = new Pictures(wanted, () => track.requestKeyframe());
  track.setMediaHandler(new library.RtcpReceivingSession());
  track.onMessage((packet) => {
    const parts = parse(packet);
    if (parts) pictures.take(parts);
  });
  const control = records ? pc.createDataChannel("flowstream") : null;
  const channels = new Channels(records, (text) => control.sendMessage(text));
  control?.onMessage((text) => channels.hear(text));
  const given = [];
  pc.onDataChannel((channel) => {
    given.push(channel); // else it is collected
    if (channel.getLabel() === "flowstream-data") channel.onMessage((text) => channels.take(text));
  });
  const gathered = new Promise((resolve) => pc.onGatheringStateChange((state) => { if (state === "complete") resolve(); }));
  pc.setLocalDescription("offer");
  await gathered;
  const { answer, session } = await offer(url, pc.localDescription().sdp);
  pc.setRemoteDescription(answer, "answer");
  await pictures.done;
  if (control) await channels.done;
  return { status: 201, ...pictures.report(), ...channels.report(), left: await leave(session) };
});
