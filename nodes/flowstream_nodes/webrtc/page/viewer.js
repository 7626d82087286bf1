// Plays one stream by WHEP, and keeps playing: every loss is said in a sentence and repaired without a reload.

const CONNECT_MS = 12_000; // no connection after this is a failure
const STALL_MS = 2_500; // no new picture for this long is worth saying
const RETRY_MS = [400, 800, 1_500, 3_000, 5_000];
const IDLE_MS = 2_500; // bars leave after this
const ABOUT_MS = 5_000; // between looks at title and tracks, which may change while we watch

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const video = $("video");

let attempt = 0; // of the current run of failures
let session = null;
let retryTimer = 0;
let wasHeard = false; // sound has been on once
let about = { title: "", video: true, audio: true };

// Who we are. The link may carry a token; a pass is how the server knows us again when we come back, in this tab alone.
const token = new URLSearchParams(location.search).get("token");
const PASS = `flowstream pass ${location.pathname}`;
const NAME = "flowstream name";
const stored = (store, key, value) => {
  try {
    if (value === undefined) return store.getItem(key);
    if (value === null) store.removeItem(key);
    else store.setItem(key, value);
  } catch {
    // A browser that keeps nothing: we are somebody new each time.
  }
  return null;
};
const bearer = () => {
  const known = stored(sessionStorage, PASS) || token;
  return known ? { Authorization: `Bearer ${known}` } : {};
};

// What can go wrong, as people should read it. `retry` is how long to wait, null when trying again is no use by itself.
class Failure extends Error {
  constructor(sentence, detail = "", retry = undefined) {
    super(sentence);
    this.detail = detail;
    this.retry = retry;
  }
}

function show(state, sentence = "", detail = "", { again = false } = {}) {
  stage.dataset.state = state;
  $("sentence").textContent = sentence;
  $("detail").textContent = detail;
  $("again").hidden = !again;
}

async function failureOf(response) {
  const text = (await response.text()).trim();
  switch (response.status) {
    case 406:
      return new Failure("This browser cannot play the stream", `${text} Chrome, Edge and Safari can; Firefox can where its H.264 plugin is installed.`, null);
    case 503: {
      const wait = 1000 * (Number(response.headers.get("Retry-After")) || 5);
      return new Failure("All places are taken", "Somebody has to leave first. Trying again by itself.", wait);
    }
    case 401:
      if (stored(sessionStorage, PASS)) {
        stored(sessionStorage, PASS, null); // it has ended; the link may still do
        return new Failure("Coming back as somebody new", "", 0);
      }
      return new Failure(token ? "This link does not count any more" : "This needs a link from its owner", token ? `${text} Ask for a new one.` : "Ask whoever showed you this address for a link to watch.", null);
    case 403:
      return new Failure(text, "", null);
    case 429: {
      const wait = 1000 * (Number(response.headers.get("Retry-After")) || 5);
      return new Failure("Too many tries from your network", "Trying again by itself.", wait);
    }
    case 404:
    case 405:
      return new Failure("The stream is not here", "It may have been stopped or renamed. Trying again by itself.");
    default:
      return new Failure("The server cannot show the stream", `It answered ${response.status}. ${text}`);
  }
}

// One connection from offer to end. Calls `onLost(failure)` once, at the end that it did not ask for.
class Session {
  constructor(onLost) {
    this.onLost = onLost;
    this.ended = false;
    this.wasConnected = false;
    this.url = null;
    this.lastFrames = -1;
    this.lastBytes = 0;
    this.lastSample = 0;
    this.newsAt = performance.now();
    this.standing = "";
  }

  async start() {
    if (!window.RTCPeerConnection) {
      throw new Failure("This browser has no WebRTC", "Use a current Chrome, Edge, Firefox or Safari.", null);
    }
    const pc = (this.pc = new RTCPeerConnection());
    const media = new MediaStream();
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    pc.ontrack = ({ track }) => {
      // A track joins when it has something: an element with a track that stays empty plays nothing at all. And the
      // last picture of the session before stays until there is something new to show.
      track.onunmute = () => {
        if (this.ended) return;
        media.addTrack(track);
        if (video.srcObject !== media) video.srcObject = media;
        if (track.kind === "audio") { this.hasSound = true; showSound(); }
        else video.requestVideoFrameCallback?.(() => { if (!this.ended && this.standing !== "paused") playing(); });
      };
    };
    pc.onconnectionstatechange = () => this.connectionChanged();
    const offer = await pc.createOffer();
    // Without this libwebrtc plays Opus in mono.
    offer.sdp = offer.sdp.replace(/useinbandfec=1/g, "useinbandfec=1;stereo=1");
    await pc.setLocalDescription(offer);
    let response;
    try {
      response = await fetch("whep", { method: "POST", headers: { "Content-Type": "application/sdp", ...bearer() }, body: offer.sdp });
    } catch {
      throw new Failure("The server cannot be reached", "It may be restarting, or this device may be offline. Trying again by itself.");
    }
    if (response.status !== 201) throw await failureOf(response);
    this.url = response.headers.get("Location");
    const sdp = await response.text();
    if (this.ended) return this.stop(); // stopped in between
    await pc.setRemoteDescription({ type: "answer", sdp });
    for (const { receiver } of pc.getTransceivers()) {
      const transport = receiver.transport;
      if (transport) transport.onstatechange = () => {
        if (transport.state === "closed" || transport.state === "failed") this.lose();
      };
    }
    this.connectTimer = setTimeout(() => this.lose(), CONNECT_MS);
    await this.stand(stored(localStorage, NAME));
    this.watchTimer = setInterval(() => this.watch(), 1000);
  }

  connectionChanged() {
    const state = this.pc.connectionState;
    if (state === "connected" && !this.wasConnected) {
      this.wasConnected = true;
      this.newsAt = performance.now();
      clearTimeout(this.connectTimer);
      if (stage.dataset.state !== "playing" && this.standing !== "waiting" && this.standing !== "paused") show("connecting", "Waiting for the picture", "The connection is there; the source has not sent anything yet.");
    } else if (state === "failed" || state === "disconnected" || state === "closed") {
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
    this.onLost(failure);
  }

  stop() {
    this.ended = true;
    clearTimeout(this.connectTimer);
    clearInterval(this.watchTimer);
    if (this.url) fetch(this.url, { method: "DELETE", keepalive: true }).catch(() => {});
    this.url = null;
    this.pc?.close();
  }

  // Asks how we stand with the owner, and says our name if there is one.
  async stand(name) {
    let told;
    try {
      const said = name ? { method: "POST", headers: { "Content-Type": "text/plain" }, body: name } : {};
      const response = await fetch(`${this.url}/state`, said);
      if (!response.ok) return; // the connection itself says what is wrong
      told = await response.json();
    } catch {
      return;
    }
    if (this.ended) return;
    if (told.pass) stored(sessionStorage, PASS, told.pass);
    const was = this.standing;
    this.standing = told.state;
    if (told.state === "waiting") {
      $("who").hidden = false;
      if (was !== "waiting" && !$("name").value) $("name").value = told.name || "";
      show("lobby", "Waiting to be let in", `The owner sees you as ${told.name ? `${told.name} (${told.viewer})` : told.viewer}.`);
    } else if (told.state === "paused") {
      show("paused", "The stream is paused", "It goes on by itself when its owner resumes it.");
    } else if (was === "waiting" || was === "paused") {
      this.newsAt = performance.now();
      show("connecting", "Waiting for the picture");
    }
    if (told.state !== "waiting") $("who").hidden = true;
  }

  async watch() {
    const now = performance.now();
    await this.stand();
    if (this.ended) return;
    let picture = null, sound = null;
    for (const report of (await this.pc.getStats()).values()) {
      if (report.type !== "inbound-rtp") continue;
      if (report.kind === "video") picture = report;
      if (report.kind === "audio") sound = report;
    }
    if (this.ended) return;
    const frames = picture?.framesDecoded ?? 0;
    const bytes = (picture?.bytesReceived ?? 0) + (sound?.bytesReceived ?? 0);
    const heard = !about.video && sound?.bytesReceived > 0; // sound only
    const moved = frames > this.lastFrames || (heard && bytes > this.lastBytes);
    const seconds = (now - this.lastSample) / 1000;
    if (this.standing === "waiting" || this.standing === "paused") {
      $("facts").textContent = "";
    } else if (moved && (frames > 0 || heard)) {
      this.newsAt = now;
      playing();
      const facts = [];
      if (!heard) facts.push(`${picture.frameWidth}×${picture.frameHeight}`, `${Math.round((frames - this.lastFrames) / seconds)} fps`);
      else facts.push("sound only");
      facts.push(bitrate((8 * (bytes - this.lastBytes)) / seconds));
      if (this.lastSample) $("facts").textContent = facts.join("  ·  ");
    } else if (this.wasConnected && now - this.newsAt > STALL_MS && stage.dataset.state === "playing") {
      $("facts").textContent = "";
      show("waiting", "The picture has stopped. Waiting for the source");
    }
    this.lastFrames = frames;
    this.lastBytes = bytes;
    this.lastSample = now;
  }
}

function bitrate(bps) {
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`;
}

function playing() {
  attempt = 0;
  if (stage.dataset.state === "playing") return;
  show("playing");
  showSound();
  wake();
}

function showSound() {
  const hasSound = Boolean(session?.hasSound);
  wasHeard ||= !video.muted;
  $("sound").hidden = !hasSound || wasHeard; // the big button is for the first time
  $("mute").hidden = !hasSound || !wasHeard;
  $("mute").setAttribute("aria-pressed", String(video.muted));
  $("mute").setAttribute("aria-label", video.muted ? "Unmute" : "Mute");
}

function setMuted(muted) {
  video.muted = muted;
  video.play().catch(() => {});
  showSound();
}

async function connect() {
  clearTimeout(retryTimer);
  session?.stop();
  const current = (session = new Session((failure) => { if (session === current) retry(failure); }));
  if (attempt === 0) show("connecting", "Connecting");
  describe();
  try {
    await current.start();
  } catch (error) {
    if (session !== current) return;
    current.stop();
    retry(error instanceof Failure ? error : new Failure("This browser could not connect", String(error.message || error)));
  }
}

function retry(failure) {
  $("who").hidden = true;
  const wait = failure.retry === undefined ? RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] : failure.retry;
  attempt += 1;
  $("facts").textContent = "";
  if (wait === null) video.srcObject = null; // what we may not see any more, we do not see
  // The first try follows so soon that a quiet word over the last picture is enough.
  if (attempt === 1 && wait !== null && stage.dataset.state === "playing") show("waiting", "Reconnecting");
  else show("failed", failure.message, failure.detail, { again: true });
  if (wait !== null) retryTimer = setTimeout(connect, wait);
}

async function describe() {
  try {
    const response = await fetch("about", { headers: bearer() });
    if (!response.ok) return;
    about = await response.json();
    $("title").textContent = document.title = about.title;
  } catch {
    // The connection itself says what is wrong with the server.
  }
}
setInterval(describe, ABOUT_MS);

let idleTimer = 0;
function wake() {
  stage.classList.remove("idle");
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => stage.classList.add("idle"), IDLE_MS);
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.(); // iPhone: only the video itself can
}

$("sound").onclick = () => setMuted(false);
$("mute").onclick = () => setMuted(!video.muted);
$("full").onclick = toggleFull;
$("again").onclick = connect;
$("who").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  stored(localStorage, NAME, name);
  session?.stand(name);
};
video.ondblclick = toggleFull;
video.onvolumechange = showSound;
// A browser that refuses even muted autoplay starts at the first touch.
video.onpause = () => { if (!session?.ended) video.play().catch(() => {}); };
for (const event of ["pointermove", "pointerdown", "keydown"]) {
  addEventListener(event, () => { wake(); if (video.paused) video.play().catch(() => {}); }, { passive: true });
}
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === $("name")) return;
  if (event.key === "m" && session?.hasSound) setMuted(!video.muted);
  if (event.key === "f") toggleFull();
});
addEventListener("online", () => { if (stage.dataset.state === "failed") connect(); });
addEventListener("pagehide", () => session?.stop());
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });

connect();
