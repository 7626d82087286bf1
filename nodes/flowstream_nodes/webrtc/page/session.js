// One viewer's session with the server: WHEP, ICE restarts, how it stands with the owner, and what arrives.

import { Channel } from "./channel.js";

const CONNECT_MS = 12_000; // no connection after this is a failure
const RESTART_MS = 1_500; // a path that is silent for this long is looked for anew
const RESTART_LIMIT_MS = 8_000; // and given up after this
const GOODBYE_MS = 2_000;
const SAMPLE_MS = 1_000;
const SDP = "application/sdp";
const FRAGMENT = "application/trickle-ice-sdpfrag";

// Who we are. The link may carry a token; a pass is how the server knows us again when we come back, in this tab alone.
const token = new URLSearchParams(location.search).get("token");
const PASS = `flowstream pass ${location.pathname}`;
const LEFT = `flowstream left ${location.pathname}`; // the session that this tab has left, till it comes back

export function stored(store, key, value) {
  try {
    if (value === undefined) return store.getItem(key);
    if (value === null) store.removeItem(key);
    else store.setItem(key, value);
  } catch {
    // A browser that keeps nothing: we are somebody new each time.
  }
  return null;
}

export function bearer() {
  const known = stored(sessionStorage, PASS) || token;
  return known ? { Authorization: `Bearer ${known}` } : {};
}

// A goodbye may be overtaken by what comes after it; whoever comes while it is still there would be somebody else.
async function sayGoodbye(left = stored(sessionStorage, LEFT)) {
  if (!left) return;
  try {
    const signal = AbortSignal.timeout?.(GOODBYE_MS); // Safari has it from 16 on
    const { ok, status } = await fetch(left, { method: "DELETE", headers: bearer(), keepalive: true, signal });
    if ((ok || status === 404) && stored(sessionStorage, LEFT) === left) stored(sessionStorage, LEFT, null);
  } catch {
    // It is said again before we come back.
  }
}

// What can go wrong, as people should read it. `retry` is how long to wait, null when trying again is no use by itself.
export class Failure extends Error {
  constructor(sentence, detail = "", retry = undefined) {
    super(sentence);
    this.detail = detail;
    this.retry = retry;
  }
}

const PLAYS = {
  VP8: "Every current browser plays it.",
  VP9: "Every current browser plays it.",
  H264: "Chrome, Edge and Safari play it; Firefox does where its H.264 plugin is installed.",
  AV1: "Chrome, Edge and Firefox play it; Safari does on devices that can decode it.",
};

async function failureOf(response) {
  const text = (await response.text()).trim();
  const wait = 1000 * (Number(response.headers.get("Retry-After")) || 5);
  switch (response.status) {
    case 401:
      if (stored(sessionStorage, PASS)) {
        stored(sessionStorage, PASS, null); // it has ended; the link may still do
        return new Failure("Coming back as somebody new", "", 0);
      }
      return token
        ? new Failure("This link does not count any more", `${text} Ask for a new one.`, null)
        : new Failure("This needs a link from its owner", "Ask whoever showed you this address for a link to watch.", null);
    case 403:
      return new Failure(text, "", null);
    case 404:
    case 405:
      return new Failure("The stream is not here", "It may have been stopped or renamed. Trying again by itself.");
    case 406: {
      const codec = /this end sends (\w+)/.exec(text)?.[1] ?? "";
      const said = codec ? `The stream is ${codec}. ${PLAYS[codec] ?? ""} (${text})` : text;
      return new Failure("This browser cannot play the stream", said, null);
    }
    case 409:
      return new Failure("There is nothing to watch yet", "The stream is just starting. Trying again by itself.", wait);
    case 429:
      return new Failure("Too many tries from your network", "Trying again by itself.", wait);
    case 503:
      return new Failure("All places are taken", "Somebody has to leave first. Trying again by itself.", wait);
    default:
      return new Failure("The server cannot show the stream", `It answered ${response.status}. ${text}`);
  }
}

// The servers in a Link header (RFC 9725 section 4.6).
function serversOf(header) {
  const servers = [];
  for (const [, url, rest] of (header ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+="(?:[^"\\]|\\.)*")*)/g)) {
    const given = Object.fromEntries([...rest.matchAll(/([\w-]+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, text]) => [name, text.replace(/\\(.)/g, "$1")]));
    if (given.rel === "ice-server") servers.push({ urls: url, username: given.username, credential: given.credential });
  }
  return servers;
}

// An answer whose transport is the one that a fragment tells of.
function withTransport(answer, fragment) {
  const of = (name) => new RegExp(`^a=${name}:(.*?)\r?$`, "m").exec(fragment)?.[1];
  const candidates = fragment.split(/\r?\n/).filter((line) => line.startsWith("a=candidate:"));
  let isFirst = true;
  return answer.split("\r\n").flatMap((line) => {
    if (line.startsWith("a=ice-ufrag:")) return [`a=ice-ufrag:${of("ice-ufrag")}`];
    if (line.startsWith("a=ice-pwd:")) return [`a=ice-pwd:${of("ice-pwd")}`];
    if (line.startsWith("a=candidate:")) return [];
    if (line === "a=end-of-candidates" && isFirst) { isFirst = false; return [...candidates, line]; }
    return [line];
  }).join("\r\n");
}

// From offer to end. The offer goes at once, and its answer is taken; `start` does the rest. `hasServers` is whether the
// answer may name servers to ask for a way, and later whether it did.
// `on.lost(failure)` comes once, at an end that nobody asked for; `on.coming(track)` when there may be a track,
// `on.track(track)` when it has something to show; `on.connected()` once; `on.restarting()` while a new path is looked
// for; `on.sample(reports)` each second; `on.standing(told, before)` when the owner lets us in, or pauses the stream;
// `on.quality(told)` now and then; `on.record(record)` for each record that comes beside the picture.
export class Session {
  constructor(hasServers) {
    this.on = null;
    this.hasServers = hasServers;
    this.ended = false;
    this.wasConnected = false;
    this.isRestarting = false;
    this.url = null;
    this.standing = "";
    this.asksStanding = true;
    this.samples = 0;
    this.untold = [];
    this.telling = Promise.resolve();
    this.started = new Promise((resolve) => { this.begin = resolve; });
    this.joined = this.join();
    this.joined.catch(() => {}); // `start` says it
  }

  // Offer and answer, for which nothing of the page has to be there yet.
  async join() {
    if (!window.RTCPeerConnection) {
      throw new Failure("This browser has no WebRTC", "Use a current Chrome, Edge, Firefox or Safari.", null);
    }
    const pc = (this.pc = new RTCPeerConnection());
    const gone = sayGoodbye();
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    const later = (name) => async (said) => { await this.started; if (!this.ended) this.on[name](said); };
    this.channel = new Channel(pc, {
      quality: later("quality"),
      refused: () => this.quality(), // the menu shows what we get all the same
      record: later("record"),
    });
    const offer = await pc.createOffer();
    // Without this libwebrtc plays Opus in mono.
    offer.sdp = offer.sdp.replace(/useinbandfec=1/g, "useinbandfec=1;stereo=1");
    await gone;
    if (this.ended) return;
    const asked = fetch("whep", { method: "POST", headers: { "Content-Type": SDP, ...bearer() }, body: offer.sdp }).catch(() => {
      throw new Failure("The server cannot be reached", "It may be restarting, or this device may be offline. Trying again by itself.");
    });
    // Addresses are gathered while the server answers, unless that is to say whom to ask for more of them.
    const described = this.hasServers ? null : pc.setLocalDescription(offer);
    described?.catch(() => {}); // it counts only if there is an answer
    const response = await asked;
    if (response.status !== 201) throw await failureOf(response);
    this.url = response.headers.get("Location");
    this.etag = response.headers.get("ETag");
    const servers = serversOf(response.headers.get("Link"));
    this.hasServers = servers.length > 0;
    this.answer = await response.text();
    if (this.ended) return this.stop(); // stopped in between
    if (servers.length) {
      if (described) throw new Failure("There are other ways to the stream now", "", 0);
      // The server finds its way to us by the addresses that we tell it.
      pc.setConfiguration({ iceServers: servers });
      pc.onicecandidate = ({ candidate }) => this.tell(candidate);
    }
    await (described ?? pc.setLocalDescription(offer));
    await pc.setRemoteDescription({ type: "answer", sdp: this.answer });
  }

  async start(on, name) {
    this.on = on;
    this.begin();
    for (const { receiver: { track } } of this.pc?.getTransceivers() ?? []) {
      const give = () => { if (!this.ended) this.on.track(track); };
      // A track joins when it has something: an element with a track that stays empty plays nothing at all.
      track.onunmute = give;
      if (track.muted) this.on.coming(track);
      else give();
    }
    await this.joined;
    if (this.ended) return;
    const pc = this.pc;
    pc.onconnectionstatechange = () => this.connectionChanged();
    for (const { receiver } of pc.getTransceivers()) {
      const transport = receiver.transport;
      if (transport) transport.onstatechange = () => {
        if (transport.state === "closed" || transport.state === "failed") this.lose();
      };
    }
    this.connectTimer = setTimeout(() => this.lose(), CONNECT_MS);
    this.connectionChanged(); // what has become of it while nobody listened
    await this.stand(name);
    if (!this.ended) this.sampleTimer = setInterval(() => this.sample(), SAMPLE_MS);
  }

  connectionChanged() {
    const state = this.pc.connectionState;
    if (state === "connected") {
      for (const timer of [this.connectTimer, this.restartTimer, this.giveUpTimer]) clearTimeout(timer);
      this.isRestarting = false;
      if (!this.wasConnected) { this.wasConnected = true; this.on.connected(); }
    } else if (state === "disconnected") {
      clearTimeout(this.restartTimer);
      this.restartTimer = setTimeout(() => this.restart(), RESTART_MS);
    } else if (state === "failed") {
      if (this.isRestarting || !this.wasConnected) this.lose();
      else this.restart();
    } else if (state === "closed") {
      this.lose();
    }
  }

  // One more address at which we can be reached; those that come at once go together, one request after the other.
  tell(candidate) {
    if (!candidate?.candidate || !candidate.usernameFragment) return;
    this.untold.push(candidate);
    this.telling = this.telling.then(async () => {
      const ufrag = this.untold.at(-1)?.usernameFragment;
      const lines = this.untold.splice(0).filter((each) => each.usernameFragment === ufrag).map((each) => `a=${each.candidate}\r\n`);
      if (!lines.length || this.ended || !this.url) return;
      await fetch(this.url, {
        method: "PATCH", headers: { "Content-Type": FRAGMENT, "If-Match": this.etag, ...bearer() },
        body: `a=ice-ufrag:${ufrag}\r\n${lines.join("")}`,
      });
    }).catch(() => {}); // the connection itself says what is wrong
  }

  // New credentials for the same session (an ICE restart): after a change of network.
  async restart() {
    if (this.ended || this.isRestarting || !this.url) return;
    this.isRestarting = true;
    clearTimeout(this.restartTimer);
    if (this.wasConnected) this.on.restarting();
    this.giveUpTimer = setTimeout(() => this.lose(), RESTART_LIMIT_MS);
    try {
      const offer = await this.pc.createOffer({ iceRestart: true });
      const said = /^m=.*$|^a=(?:mid|ice-ufrag|ice-pwd):.*$/gm;
      const seen = new Set(); // of one section: all share its transport
      const lines = offer.sdp.replace(/\r/g, "").match(said).filter((line) => {
        const name = line.replace(/[=:].*/, "") + (line[0] === "a" ? line.slice(2).split(":")[0] : "");
        return !seen.has(name) && seen.add(name);
      });
      const response = await fetch(this.url, {
        method: "PATCH", headers: { "Content-Type": FRAGMENT, "If-Match": "*", ...bearer() }, body: lines.join("\r\n") + "\r\n",
      });
      if (response.status !== 200) throw new Error(await response.text());
      this.etag = response.headers.get("ETag");
      if (this.ended) return;
      await this.pc.setLocalDescription(offer);
      this.answer = withTransport(this.answer, await response.text());
      if (!this.ended) await this.pc.setRemoteDescription({ type: "answer", sdp: this.answer });
    } catch {
      this.lose();
    }
  }

  lose() {
    if (this.ended) return;
    const failure = this.wasConnected
      ? new Failure("The connection was lost", "Trying again by itself.")
      : this.pc.localDescription?.sdp.includes("a=candidate")
        ? new Failure("The picture cannot get through", "The page arrived, but a firewall between here and the server seems to block UDP. Trying again by itself.")
        : new Failure("This browser found no network for the picture", "It takes none on a machine that is on no network. Chromium can be told to: start it with --allow-loopback-in-peer-connection --disable-features=WebRtcHideLocalIpsWithMdns.");
    this.stop();
    this.on.lost(failure);
  }

  stop() {
    this.ended = true;
    for (const timer of [this.connectTimer, this.restartTimer, this.giveUpTimer]) clearTimeout(timer);
    clearInterval(this.sampleTimer);
    if (this.url) {
      stored(sessionStorage, LEFT, this.url);
      sayGoodbye(this.url);
    }
    this.url = null;
    this.pc?.close();
  }

  // Asks how we stand with the owner, and says our name if there is one.
  async stand(name) {
    if (!this.asksStanding || !this.url) return;
    let told;
    try {
      const said = name ? { method: "POST", headers: { "Content-Type": "text/plain" }, body: name } : {};
      const response = await fetch(`${this.url}/state`, said);
      if (response.status === 404) this.asksStanding = false; // whoever comes here may watch
      if (!response.ok) return; // the connection itself says what is wrong
      told = await response.json();
    } catch {
      return;
    }
    if (this.ended) return;
    if (told.pass) stored(sessionStorage, PASS, told.pass);
    const before = this.standing;
    this.standing = told.state;
    this.on.standing(told, before);
  }

  // Which rendition we get, of which there are, and why; choosing one, or "auto", if a name is given. Over the channel
  // the server says so by itself.
  async quality(wanted) {
    if (!this.url || (wanted && this.channel.choose(wanted))) return;
    try {
      const said = wanted ? { method: "POST", headers: { "Content-Type": "text/plain" }, body: wanted } : {};
      const response = await fetch(`${this.url}/quality`, said);
      if (response.ok && !this.ended) this.on.quality(await response.json());
    } catch {
      // The connection itself says what is wrong.
    }
  }

  get isHeldBack() {
    return this.standing === "waiting" || this.standing === "paused";
  }

  async sample() {
    await this.stand();
    if (this.wasConnected && !this.isHeldBack && !this.channel.isOpen && this.samples++ % 3 === 0) this.quality();
    if (this.ended) return;
    const reports = await this.pc.getStats();
    if (!this.ended) this.on.sample(reports);
  }
}

// What there is to see, if whoever opened the page may know that: the page brings it along.
export const told = JSON.parse(document.documentElement.dataset.about ?? "null");

// Of the page that is opened: its offer goes while the rest of the page is still read.
export const opening = new Session(told?.servers ?? true);
