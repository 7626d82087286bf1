// What goes beside the media: how we stand with the server, its clock, our choice of a rendition, and records.
// The messages are described in flowstream/proto/viewer_channel.py. Without the channel the page asks by HTTP.

const LABEL = "flowstream";
const DATA_LABEL = "flowstream-data";
const VERSION = 1;
const PINGS = 8; // kept, of which the quickest tells the time best
const RTP_HZ = 90_000;

// Messages of one session. `on.quality(told)` when we get another rendition, or chose one; `on.refused(text)` when a
// choice was not taken; `on.record(record)` for each record.
export class Channel {
  constructor(pc, on) {
    this.on = on;
    this.stats = null; // what the server said last
    this.isOpen = false; // and speaks our version
    this.pings = new Map();
    this.lastPing = 0;
    this.clocks = []; // {ahead, trip}: how far the server's clock is ahead of performance.now(), by a round trip
    if (!pc.createDataChannel) return;
    this.control = pc.createDataChannel(LABEL);
    this.control.onmessage = ({ data }) => this.hear(data);
    this.control.onclose = () => { this.isOpen = false; };
    pc.ondatachannel = ({ channel }) => {
      if (channel.label !== DATA_LABEL) return;
      channel.onmessage = ({ data }) => {
        const record = parsed(data);
        if (record) this.on.record(record);
      };
    };
  }

  hear(text) {
    const said = parsed(text);
    switch (said?.type) {
      case "hello":
        this.isOpen = said.version === VERSION;
        break;
      case "stats":
        this.stats = said;
        break;
      case "quality":
        this.on.quality(said);
        break;
      case "error":
        if (said.id !== undefined) this.on.refused(said.text);
        break;
      case "pong": {
        const asked = this.pings.get(said.id);
        if (asked === undefined) break;
        this.pings.delete(said.id);
        const answered = performance.now();
        const trip = answered - asked - (said.sent_ms - said.received_ms);
        this.clocks.push({ trip, ahead: (said.received_ms + said.sent_ms - asked - answered) / 2 });
        if (this.clocks.length > PINGS) this.clocks.shift();
      }
    }
  }

  say(message) {
    if (!this.isOpen || this.control.readyState !== "open") return false;
    this.control.send(JSON.stringify(message));
    return true;
  }

  // Whether the choice is on its way; the answer comes as `on.quality`.
  choose(wanted) {
    return this.say({ type: "quality", choose: wanted, id: ++this.lastPing });
  }

  // Asks what time it is; to be called each second while anybody wants to know.
  ask() {
    this.beats = (this.beats ?? 0) + 1;
    if (this.clocks.length >= PINGS && this.beats % 5) return;
    if (this.pings.size > PINGS) this.pings.clear(); // they were lost with the path
    this.pings.set(++this.lastPing, performance.now());
    if (!this.say({ type: "ping", id: this.lastPing })) this.pings.delete(this.lastPing);
  }

  // When the picture with an RTP timestamp was captured, by performance.now(); null while that is not known.
  capturedAt(rtpTimestamp) {
    const capture = this.stats?.capture;
    if (!capture || rtpTimestamp === undefined || !this.clocks.length) return null;
    const { ahead } = this.clocks.reduce((best, each) => (each.trip < best.trip ? each : best));
    const since = (rtpTimestamp - capture.rtp) | 0; // modulo 2**32, either way
    return capture.captured_ms + (1000 * since) / RTP_HZ - ahead;
  }
}

function parsed(text) {
  try {
    const said = JSON.parse(text);
    return said && typeof said === "object" ? said : null;
  } catch {
    return null; // of a later version
  }
}
