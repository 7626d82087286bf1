// Many viewers of node-datachannel (libdatachannel) in one process: node crowd.js URL COUNT
// Says a line when all are connected. For each line that it reads it writes what came since the last one: a list with,
// for each viewer, {states, pair, fingerprint, streams: {SSRC: [[ms, sequenceNumber, timestamp, marker], ...]}}; ms is
// of the monotonic clock. Ends, and says goodbye, when there is nothing more to read.
"use strict";
const readline = require("node:readline");
const library = require("node-datachannel");
const { offer, leave } = require("./common.js");

const VIDEO = 102, AUDIO = 111;

class Viewer {
  constructor(name) {
    Object.assign(this, { states: [], streams: new Map() });
    this.pc = new library.PeerConnection(name, { iceServers: [], disableAutoNegotiation: true });
    this.connected = new Promise((resolve, reject) => {
      this.pc.onStateChange((state) => {
        this.states.push(state);
        if (state === "connected") resolve();
        if (state === "failed" || state === "closed") reject(new Error(`${name} is ${state}`));
      });
    });
    const video = new library.Video("0", "RecvOnly"), audio = new library.Audio("1", "RecvOnly");
    video.addH264Codec(VIDEO, "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1");
    audio.addOpusCodec(AUDIO);
    this.tracks = [[video, VIDEO], [audio, AUDIO]].map(([media, payloadType]) => {
      const track = this.pc.addTrack(media);
      track.setMediaHandler(new library.RtcpReceivingSession());
      track.onMessage((packet) => this.take(packet, payloadType));
      return track;
    });
  }

  take(packet, payloadType) {
    if ((packet[1] & 0x7f) !== payloadType) return;
    const ms = Number(process.hrtime.bigint()) / 1e6;
    const ssrc = packet.readUInt32BE(8);
    if (!this.streams.has(ssrc)) this.streams.set(ssrc, []);
    this.streams.get(ssrc).push([ms, packet.readUInt16BE(2), packet.readUInt32BE(4), packet[1] >> 7]);
  }

  async join(url) {
    const gathered = new Promise((resolve) => {
      this.pc.onGatheringStateChange((state) => { if (state === "complete") resolve(); });
    });
    this.pc.setLocalDescription("offer");
    await gathered;
    const { answer, session } = await offer(url, this.pc.localDescription().sdp);
    this.session = session;
    this.pc.setRemoteDescription(answer, "answer");
    await this.connected;
  }

  report() {
    const { states } = this, streams = Object.fromEntries(this.streams);
    this.streams = new Map();
    const { local, remote } = this.pc.getSelectedCandidatePair();
    const pair = [local, remote].map(({ address, port }) => `${address} ${port}`).join(" > ");
    return { states, pair, fingerprint: this.pc.remoteFingerprint().value, streams };
  }
}

async function main(url, count) {
  const viewers = Array.from({ length: count }, (_, n) => new Viewer(`viewer ${n + 1}`));
  await Promise.all(viewers.map((viewer) => viewer.join(url)));
  console.log(JSON.stringify("connected"));
  for await (const _ of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(viewers.map((viewer) => viewer.report())));
  }
  await Promise.all(viewers.map((viewer) => leave(viewer.session)));
}

main(process.argv[2], Number(process.argv[3])).then(
  () => process.exit(0),
  (error) => { console.error(error); process.exit(1); },
);
