// What every WHEP player here does beside its own library: requests, counting pictures of H.264, and the report.
"use strict";

const KEYFRAME = new Set([5, 7]); // an IDR slice, or the parameter sets before one
const PATIENCE_MS = 60_000;
const made = []; // what a player has to show when it is given up
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
    made.push(this);
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

// What is said over the data channel `flowstream`, and the records that come over `flowstream-data`: asks for the time and
// for the rung `low`, and is done when both were answered and so many records have come.
class Channels {
  constructor(wanted, send) {
    Object.assign(this, { wanted, send, said: {}, records: [] });
    this.done = new Promise((resolve) => { this.resolve = resolve; });
    made.push(this);
  }

  hear(text) {
    const message = JSON.parse(text);
    this.said[message.type === "quality" && message.id === 2 ? "answer" : message.type] = message;
    if (message.type === "hello") {
      this.send(JSON.stringify({ type: "ping", id: 1 }));
      this.send(JSON.stringify({ type: "quality", choose: "low", id: 2 }));
      this.send("what?");
    }
    this.look();
  }

  take(text) {
    this.records.push(JSON.parse(text));
    this.look();
  }

  look() {
    const { pong, answer, stats, error } = this.said;
    if (pong && answer && stats && error && this.records.length >= this.wanted) this.resolve();
  }

  report() {
    return { said: this.said, records: this.records.map(({ number }) => number), record: this.records[0] };
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
  const [, , url, wanted, records = 0] = process.argv;
  setTimeout(() => {
    console.error(`not done after ${PATIENCE_MS} ms: ${JSON.stringify(made.map((each) => each.report()))}`);
    process.exit(1);
  }, PATIENCE_MS);
  main(url, Number(wanted), Number(records)).then(end, (error) => {
    if (error instanceof Refused) return end(error.report);
    console.error(error);
    process.exit(1);
  });
}

module.exports = { Channels, Pictures, iceServers, offer, leave, run };
