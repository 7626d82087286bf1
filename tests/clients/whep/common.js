// What every WHEP player here does beside its own library: requests, counting pictures of H.264, and the report.
"use strict";

const KEYFRAME = new Set([5, 7]); // an IDR slice, or the parameter sets before one
const STAP_A = 24, FU_A = 28;

// Whether an RTP payload of H.264 (RFC 6184) begins a picture that needs none before it.
function beginsKeyframe(payload) {
  const type = payload[0] & 0x1f;
  if (type === STAP_A) return KEYFRAME.has(payload[3] & 0x1f);
  if (type === FU_A) return Boolean(payload[1] & 0x80) && KEYFRAME.has(payload[1] & 0x1f);
  return KEYFRAME.has(type);
}

// Counts pictures and gaps from what arrives; `askKeyframe` is called once, halfway.
class Pictures {
  constructor(wanted, askKeyframe) {
    Object.assign(this, { wanted, askKeyframe, count: 0, packets: 0, lost: 0, keyframes: 0, firstIsKeyframe: null });
    this.done = new Promise((resolve) => { this.resolve = resolve; });
  }

  take({ sequenceNumber, timestamp, marker, payload }) {
    this.packets += 1;
    if (payload.length === 0) return;
    const isKey = beginsKeyframe(payload);
    this.firstIsKeyframe ??= isKey;
    if (isKey && timestamp !== this.keyTimestamp) { this.keyframes += 1; this.keyTimestamp = timestamp; }
    if (this.last !== undefined && ((sequenceNumber - this.last) & 0xffff) !== 1) this.lost += 1;
    this.last = sequenceNumber;
    if (!marker) return;
    this.count += 1;
    if (this.count === this.wanted >> 1) { this.keyframesBefore = this.keyframes; this.askKeyframe(); }
    if (this.count >= this.wanted && this.keyframes > this.keyframesBefore) this.resolve();
  }

  report() {
    const { count, packets, lost, keyframes, keyframesBefore, firstIsKeyframe } = this;
    return { pictures: count, packets, lost, first_is_keyframe: firstIsKeyframe, keyframes_asked: keyframes - keyframesBefore };
  }
}

class Refused extends Error {
  constructor(report) { super(report.text); this.report = report; }
}

async function offer(url, sdp) {
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: sdp });
  const text = await response.text();
  if (response.status !== 201) throw new Refused({ status: response.status, text });
  return { answer: text, session: new URL(response.headers.get("Location"), url), tag: response.headers.get("ETag") };
}

// The STUN servers that the test names, as URLs.
function iceServers() {
  return (process.env.ICE_SERVERS ?? "").split(" ").filter(Boolean);
}

async function leave(session) {
  return (await fetch(session, { method: "DELETE" })).status;
}

function end(report) {
  process.stdout.write(JSON.stringify(report) + "\n", () => process.exit(0));
}

function run(main) {
  const [, , url, wanted] = process.argv;
  main(url, Number(wanted)).then(end, (error) => {
    if (error instanceof Refused) return end(error.report);
    console.error(error);
    process.exit(1);
  });
}

module.exports = { Pictures, iceServers, offer, leave, run };
