"use strict";
const $ = (query, within = document) => within.querySelector(query);
const main = $("#found"), form = $("#ask"), said = $("#status");
const still = matchMedia("(prefers-reduced-motion: reduce)");
document.documentElement.classList.add("scripts");

// A query changes the answers and the address; the back key brings both back.
let asking = null, shown = location.search;
async function show(url, push, options = {}) {
  asking?.abort();
  const mine = asking = new AbortController();
  document.body.classList.add("busy");
  try {
    const got = await fetch(options.at ?? "/results" + url.search, { ...options, signal: mine.signal });
    const html = await got.text();
    if (!(got.headers.get("content-type") ?? "").startsWith("text/html")) throw new Error(html);
    stop();
    main.innerHTML = html;  // escaped by the server; scripts in it would not run
    if (push) history.pushState(null, "", url);
    shown = url.search;
    for (const field of form.elements) if (field.name) field.value = url.searchParams.get(field.name) ?? "";
    const told = $(".told", main), notice = $(".notice", main);
    document.title = (told ? told.textContent + " · " : "") + "regionvlp";
    said.textContent = notice?.textContent ?? (told?.dataset.told ?? "");
    if (push) scrollTo(0, 0);
  } catch (error) {
    if (error.name !== "AbortError") said.textContent = "The server does not answer: " + error.message;
    if (error.name !== "AbortError" && push && !options.at) location.assign(url);
  } finally {
    if (asking === mine) document.body.classList.remove("busy");
  }
}
form.addEventListener("submit", event => {
  event.preventDefault();
  const url = new URL("/", location.href);
  for (const [name, value] of new FormData(form)) if (value) url.searchParams.set(name, value);
  show(url, true);
});
addEventListener("popstate", () => {  // which a link within the page sends as well
  if (location.search !== shown) show(new URL(location.href), false);
});
main.addEventListener("click", event => {
  const link = event.target.closest("a[href^='/?']");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    show(new URL(link.href), true);
  }
  const button = event.target.closest(".play");
  if (button) playing?.card === button.closest(".a") ? stop() : play(button.closest(".a"));
});

// A moment plays over its still picture, and its frames take turns with it.
const NEAR = .2;  // seconds around its frame in which a box is shown: what moves is elsewhere soon
let playing = null;
function stop() {
  if (!playing) return;
  playing.video.remove();
  playing.card.classList.remove("between");
  const button = $(".play", playing.card);
  button.textContent = "Play";
  button.setAttribute("aria-pressed", "false");
  playing = null;
}
function play(card) {
  stop();
  if (!card.dataset.media) return;
  const video = document.createElement("video"), start = +card.dataset.start, end = +card.dataset.end;
  const times = [...card.querySelectorAll(".ts input")];
  Object.assign(video, { muted: true, playsInline: true, preload: "auto", src: card.dataset.media });
  video.setAttribute("aria-hidden", "true");
  const fail = () => {
    if (playing?.video !== video) return;
    stop();
    const sorry = $(".sorry", card), button = $(".play", card);
    sorry.hidden = false;
    button.disabled = true;
    said.textContent = sorry.textContent;
  };
  const follow = () => {
    if (playing?.video !== video) return;
    if (end > start && (video.currentTime >= end || video.currentTime < start - .5)) video.currentTime = start;
    const near = times.reduce((best, t) => !best || Math.abs(t.dataset.time - video.currentTime) < Math.abs(best.dataset.time - video.currentTime) ? t : best, null);
    if (near) {
      near.checked = true;
      card.classList.toggle("between", Math.abs(near.dataset.time - video.currentTime) > NEAR);
    }
    requestAnimationFrame(follow);
  };
  video.addEventListener("error", fail);
  video.addEventListener("ended", () => { video.currentTime = start; video.play().catch(fail); });
  video.addEventListener("loadedmetadata", () => { if (!video.videoWidth) fail(); });
  playing = { card, video };
  $(".stage .still:last-of-type", card)?.after(video) ?? $(".thumb", card).after(video);
  const button = $(".play", card);
  button.textContent = "Stop";
  button.setAttribute("aria-pressed", "true");
  video.play().then(() => requestAnimationFrame(follow)).catch(error => { if (error.name !== "AbortError") fail(); });
}
let soon = 0;
main.addEventListener("pointerover", event => {
  const card = event.target.closest(".stage")?.closest(".a");
  if (event.pointerType === "mouse") {
    clearTimeout(soon);
    if (card && card !== playing?.card && !still.matches && !$(".play", card)?.disabled) soon = setTimeout(play, 250, card);
  }
  const word = event.target.closest(".ws label");
  if (word && event.pointerType === "mouse") $("input", word).checked = true;
});
main.addEventListener("pointerout", event => {
  const stage = event.target.closest(".stage");
  if (event.pointerType === "mouse" && stage && !stage.contains(event.relatedTarget)) {
    clearTimeout(soon);
    if (playing?.card === stage.closest(".a")) stop();
  }
});
// A word that is chosen shows itself: the frame with a box of it, if this one has none.
main.addEventListener("change", event => {
  const card = event.target.closest(".a");
  if (!event.target.closest(".ws") || !card || playing) return;
  const boxes = [...card.querySelectorAll("rect.w" + event.target.value)].map(r => r.classList[1].slice(1));
  const now = $(".ts input:checked", card)?.value;
  if (boxes.length && !boxes.includes(now)) $(`.ts [value="${boxes[0]}"]`, card).checked = true;
});

// A picture to search by.
const drop = $("#drop");
if (drop) {
  const send = file => file && show(new URL("/", location.href), true, { at: "/picture", method: "POST", body: file });
  $("#photo").addEventListener("change", event => send(event.target.files[0]));
  addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", event => {
    event.preventDefault();
    document.body.classList.remove("over");
    send(event.dataTransfer.files[0]);
  });
}
// "/" goes to the search box.
addEventListener("keydown", event => {
  if (event.key === "/" && !document.activeElement.matches("input:not([type=radio])")) {
    event.preventDefault();
    $("#q").focus();
  }
  if (event.key === "Escape") stop();
});
