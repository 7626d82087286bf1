// Plays one stream and keeps playing: every loss is said in a sentence and repaired without a reload.

import { Failure, Session, bearer, opening, stored, told } from "./session.js";
import { Panel, bitrate } from "./panel.js";

const STALL_MS = 2_500; // no new picture for this long is worth saying
const RETRY_MS = [400, 800, 1_500, 3_000, 5_000];
const IDLE_MS = 2_500; // bars leave after this
const ABOUT_MS = 5_000; // between looks at title and tracks, which may change while we watch
const FRESH_MS = 400; // a page that is opened shows nothing but its ground for this long, if there is nothing to say
const ALONE_MS = 500; // sound waits for the picture for this long
const NAME = "flowstream name";

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const video = $("video");
const panel = new Panel();

let attempt = 0; // of the current run of failures
let session = null;
let retryTimer = 0;
let wasHeard = false; // sound has been on once
let newsAt = 0; // when something new was last seen or heard
let first = opening; // until it is used
let about = told ?? { title: "", video: true, audio: true };
let clockMs = null; // how far the server's clock is ahead of ours, as well as one request can tell

function show(state, sentence = "", detail = "", { again = false } = {}) {
  stage.dataset.state = state;
  if (state !== "connecting") settle();
  $("sentence").textContent = sentence;
  $("detail").textContent = detail;
  $("again").hidden = !again;
  if (state !== "lobby") $("who").hidden = true;
}

function settle() {
  stage.classList.remove("fresh");
}
setTimeout(settle, FRESH_MS);

// What one session tells us. A session that was stopped says nothing more.
function listener() {
  const media = new MediaStream();
  let hasSound = false;
  let isWatched = false;
  const give = (track) => {
    media.addTrack(track);
    // The last picture of the session before stays until there is something new to show.
    if (video.srcObject !== media) video.srcObject = media;
    if (track.kind === "video" && !isWatched) { isWatched = true; watchFrames(session); }
  };
  const on = {
    get hasSound() { return hasSound; },
    lost: (failure) => { if (session?.on === on) retry(failure); },
    connected: () => {
      newsAt = performance.now();
      if (stage.dataset.state !== "playing" && !session.isHeldBack) {
        show("connecting", "Waiting for the picture", "The connection is there; the source has not sent anything yet.");
      }
    },
    restarting: () => { if (!session.isHeldBack) show("waiting", "The network changed. Looking for another way"); },
    // The player is made ready for the picture while the connection is, where there is no other picture to keep. Not
    // before the page is loaded: it would not count as loaded until the picture is there.
    coming: (track) => {
      const ready = () => {
        if (track.kind === "video" && told?.video && session.on === on && !session.ended && !video.videoWidth) give(track);
      };
      if (document.readyState === "complete") ready();
      else addEventListener("load", ready, { once: true });
    },
    track: (track) => {
      give(track);
      if (track.kind === "video") return;
      hasSound = true;
      showSound();
      // An element with a track that stays empty plays nothing at all: then the sound goes first.
      setTimeout(() => {
        const [picture] = media.getVideoTracks();
        if (!picture || video.srcObject !== media || video.readyState) return;
        media.removeTrack(picture);
        video.srcObject = media;
        video.addEventListener("loadeddata", () => media.addTrack(picture), { once: true });
      }, ALONE_MS);
    },
    standing: (told, before) => {
      if (told.state === "waiting") {
        show("lobby", "Waiting to be let in", `The owner sees you as ${told.name ? `${told.name} (${told.viewer})` : told.viewer}.`);
        if (before !== "waiting" && !$("name").value) $("name").value = told.name || "";
        $("who").hidden = false;
      } else if (told.state === "paused") {
        show("paused", "The stream is paused", "It goes on by itself when its owner resumes it.");
      } else if (before === "waiting" || before === "paused") {
        newsAt = performance.now();
        show("connecting", "Waiting for the picture");
      }
    },
    quality: showQuality,
    record: (record) => dispatchEvent(new CustomEvent("flowstream:data", { detail: record })),
    sample,
  };
  return on;
}

function watchFrames(current) {
  if (!video.requestVideoFrameCallback) return;
  let isFirst = true;
  const next = (now, metadata) => {
    if (current.ended) return;
    if (isFirst && current.standing !== "paused") { isFirst = false; playing(); }
    panel.shown(now, metadata, current.channel);
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
}

function sample(reports) {
  if (!$("panel").hidden) session.channel.ask();
  if (clockMs === null) describe();
  const since = panel.take(reports, clockMs, session.channel);
  const facts = $("facts");
  if (session.isHeldBack || !since) {
    facts.textContent = "";
    return;
  }
  const isSoundOnly = !about.video && since.bytes > 0;
  const now = performance.now();
  if (since.frames > 0 || isSoundOnly) {
    newsAt = now;
    playing();
    facts.textContent = [isSoundOnly ? "sound only" : `${since.size}  ·  ${Math.round(since.fps)} fps`, bitrate(since.rate)].join("  ·  ");
  } else if (session.wasConnected && !session.isRestarting && now - newsAt > STALL_MS && stage.dataset.state === "playing") {
    facts.textContent = "";
    show("waiting", "The picture has stopped. Waiting for the source");
  }
}

function playing() {
  attempt = 0;
  if (stage.dataset.state === "playing") return;
  show("playing");
  showSound();
  wake();
}

function showSound() {
  const hasSound = Boolean(session?.on.hasSound);
  wasHeard ||= !video.muted;
  $("sound").hidden = !hasSound || wasHeard; // the big button is for the first time
  $("mute").hidden = !hasSound || !wasHeard;
  $("mute").setAttribute("aria-pressed", String(video.muted));
  $("mute").setAttribute("aria-label", video.muted ? "Unmute" : "Mute");
  $("mute").title = video.muted ? "Unmute (m)" : "Mute (m)";
}

// The menu is there where there is a choice. What it says beside "Auto" is what we get by it.
function showQuality({ chosen, rung, why, rungs }) {
  const menu = $("quality");
  menu.hidden = rungs.length < 2;
  if (menu.hidden || document.activeElement === menu) return;
  const lines = (size) => (size ? `${size.split("x")[1]}p` : "");
  const known = rungs.map(({ name, size, bitrate: rate }) => [name, [lines(size) || name, rate ? bitrate(rate) : ""].filter(Boolean).join(", ")]);
  const now = rungs.find(({ name }) => name === rung);
  const options = [["auto", chosen === "auto" && now ? `Auto (${lines(now.size) || now.name})` : "Auto"], ...known];
  menu.replaceChildren(...options.map(([name, text]) => new Option(text, name, false, name === chosen)));
  menu.title = why ?? "";
}

function setMuted(muted) {
  video.muted = muted;
  video.play().catch(() => {});
  showSound();
}

async function connect() {
  clearTimeout(retryTimer);
  session?.stop();
  const current = (session = first ?? new Session(session.hasServers));
  panel.begin();
  if (attempt === 0) show("connecting", "Connecting");
  if (!first || !told) describe();
  first = null;
  try {
    await current.start(listener(), stored(localStorage, NAME));
  } catch (error) {
    if (session !== current) return;
    current.stop();
    retry(error instanceof Failure ? error : new Failure("This browser could not connect", String(error.message || error)));
  }
}

function retry(failure) {
  const wait = failure.retry === undefined ? RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] : failure.retry;
  attempt += 1;
  $("facts").textContent = "";
  if (wait === null) video.srcObject = null; // what we may not see any more, we do not see
  // The first try follows so soon that a quiet word over the last picture is enough.
  if (attempt === 1 && wait !== null && ["playing", "waiting"].includes(stage.dataset.state)) show("waiting", "Reconnecting");
  else show("failed", failure.message, failure.detail, { again: true });
  if (wait !== null) retryTimer = setTimeout(connect, wait);
  else video.srcObject = null; // the last picture is not ours to see any more
}

async function describe() {
  try {
    const asked = Date.now();
    const response = await fetch("about", { headers: bearer() });
    if (!response.ok) return;
    about = await response.json();
    if (about.now) clockMs = about.now - (asked + Date.now()) / 2;
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

async function toggleSmall() {
  try {
    if (document.pictureInPictureElement) await document.exitPictureInPicture();
    else await video.requestPictureInPicture();
  } catch {
    // No picture yet, or the browser does not want to.
  }
}

function togglePanel() {
  $("panel").hidden = !$("panel").hidden;
  $("stats").setAttribute("aria-expanded", String(!$("panel").hidden));
  stage.classList.toggle("with-panel", !$("panel").hidden);
  panel.draw();
}

$("sound").onclick = () => setMuted(false);
$("mute").onclick = () => setMuted(!video.muted);
$("full").onclick = toggleFull;
$("small").onclick = toggleSmall;
$("small").hidden = !document.pictureInPictureEnabled;
$("stats").onclick = togglePanel;
$("close").onclick = togglePanel;
$("quality").onchange = () => { session?.quality($("quality").value); $("quality").blur(); };
$("again").onclick = () => { attempt = 0; connect(); };
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
  if (event.key === "m" && session?.on.hasSound) setMuted(!video.muted);
  if (event.key === "f") toggleFull();
  if (event.key === "p") toggleSmall();
  if (event.key === "i") togglePanel();
});
addEventListener("online", () => { if (stage.dataset.state === "failed") connect(); });
addEventListener("pagehide", () => session?.stop());
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });

$("title").textContent = about.title;
connect();
