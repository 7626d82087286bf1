// What arrives, in figures and small plots: a minute of each.

const KEPT = 60;
const WIDTH = 120, HEIGHT = 32; // of a plot, in its own units
const NTP_MS = 2_208_988_800_000; // from 1900 to 1970

const $ = (id) => document.getElementById(id);

export function bitrate(bps) {
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`;
}

const milliseconds = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);
const percent = (share) => (share > 0 && share < 10 ? `${share.toFixed(1)} %` : `${Math.round(share)} %`);

// Each plot's figure is what it drew last; `least` keeps noise from looking like a storm.
const PLOTS = {
  rate: { text: bitrate, least: 100_000 },
  loss: { text: percent, least: 2 },
  buffer: { text: milliseconds, least: 20 },
  delay: { text: milliseconds, least: 50 },
};

export class Panel {
  constructor() {
    this.values = Object.fromEntries(Object.keys(PLOTS).map((name) => [name, []]));
    this.begin();
  }

  // A new session counts from zero.
  begin() {
    this.last = null;
    this.captureMs = null;
  }

  // When the picture that is on the screen was taken (requestVideoFrameCallback): by the server's own word where it has
  // given it, else by what the browser makes of its reports.
  shown(now, metadata, channel) {
    const captured = channel.capturedAt(metadata.rtpTimestamp) ?? metadata.captureTime;
    this.captureMs = captured === undefined ? null : (metadata.expectedDisplayTime ?? now) - captured;
  }

  // Takes one look at the session; gives what came since the last, or null the first time.
  take(reports, clockMs, channel) {
    const now = { at: performance.now(), picture: {}, sound: {}, path: {}, codec: "" };
    for (const report of reports.values()) {
      if (report.type === "inbound-rtp" && report.kind === "video") now.picture = report;
      if (report.type === "inbound-rtp" && report.kind === "audio") now.sound = report;
      if (report.type === "candidate-pair" && report.nominated && report.state === "succeeded") now.path = report;
    }
    now.codec = (reports.get(now.picture.codecId)?.mimeType ?? "").split("/")[1] ?? "";
    const relay = reports.get(now.path.localCandidateId)?.candidateType === "relay";
    const last = this.last;
    this.last = now;
    if (!last) return null;
    const main = now.picture.bytesReceived ? "picture" : "sound";
    const grew = (name, of = main) => Math.max(0, (now[of][name] ?? 0) - (last[of][name] ?? 0));
    const seconds = (now.at - last.at) / 1000;
    const lost = grew("packetsLost"), received = grew("packetsReceived");
    const emitted = grew("jitterBufferEmittedCount"), decoded = grew("framesDecoded");
    const buffer = emitted ? (1000 * grew("jitterBufferDelay")) / emitted : null;
    const roundTrip = now.path.currentRoundTripTime === undefined ? null : 1000 * now.path.currentRoundTripTime;
    const rate = (8 * (grew("bytesReceived", "picture") + grew("bytesReceived", "sound"))) / seconds;
    // From capture to screen where the browser knows; else what it knows of the way: network, buffer, decoder.
    let delay = this.captureMs, isWhole = delay !== null;
    if (!isWhole && now[main].estimatedPlayoutTimestamp > NTP_MS && clockMs !== null) {
      delay = Date.now() + clockMs - (now[main].estimatedPlayoutTimestamp - NTP_MS);
      isWhole = true;
    }
    if (delay === null && roundTrip !== null && buffer !== null) {
      delay = roundTrip / 2 + buffer + (decoded ? (1000 * grew("totalDecodeTime")) / decoded : 0);
    }
    if (delay !== null) delay = Math.max(0, delay);
    this.add({ rate, loss: lost + received ? (100 * lost) / (lost + received) : null, buffer, delay });
    const { frameWidth, frameHeight, framesDropped = 0, freezeCount = 0, pliCount = 0, nackCount = 0 } = now.picture;
    const since = {
      bytes: grew("bytesReceived", "picture") + grew("bytesReceived", "sound"), frames: grew("framesDecoded", "picture"), rate,
      fps: grew("framesDecoded", "picture") / seconds, size: frameWidth ? `${frameWidth}×${frameHeight}` : "",
    };
    if (!$("panel").hidden) {
      this.draw();
      $("delay-label").textContent = isWhole ? "Capture to screen" : "Network and buffer";
      this.row("picture", since.size ? `${since.size}, ${Math.round(since.fps)} fps, ${now.codec}` : "none");
      this.row("sound", now.sound.bytesReceived ? (reports.get(now.sound.codecId)?.mimeType ?? "").split("/")[1] : "none");
      this.row("decoded", `${now.picture.framesDecoded ?? 0}, ${framesDropped} left out, ${freezeCount} freezes`);
      this.row("repaired", `${nackCount} losses asked for, ${pliCount} keyframes`);
      const told = channel.stats;
      this.row("link", told?.estimate ? `carries ${bitrate(told.estimate)}, ${told.frames_dropped} left out` : "");
      this.row("way", roundTrip === null ? "" : `${milliseconds(roundTrip)} there and back${relay ? ", by a relay" : ""}`);
    }
    return since;
  }

  add(sample) {
    for (const [name, value] of Object.entries(sample)) {
      const values = this.values[name];
      values.push(value);
      if (values.length > KEPT) values.shift();
    }
  }

  draw() {
    for (const [name, { text, least }] of Object.entries(PLOTS)) {
      const values = this.values[name];
      const most = Math.max(least, ...values.map((value) => value ?? 0));
      const x = (index) => (WIDTH * (KEPT - values.length + index)) / (KEPT - 1);
      const points = values.map((value, index) => (value === null ? null : `${x(index).toFixed(1)},${(HEIGHT - 1 - ((HEIGHT - 3) * value) / most).toFixed(1)}`)).filter(Boolean);
      const last = values.at(-1) ?? null;
      $(`${name}-now`).textContent = last === null ? "–" : text(last);
      $(`${name}-line`).setAttribute("points", points.join(" "));
      $(`${name}-area`).setAttribute("points", points.length ? `${points[0].split(",")[0]},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` : "");
    }
  }

  row(name, text) {
    $(`row-${name}`).textContent = text;
  }
}
