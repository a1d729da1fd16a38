// What the server cannot do for a page: local times, counting what is about to change, and keeping a live list short.
(() => {
  "use strict";
  const KEPT = 300; // events on the page; older ones are on the server
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Times are sent in UTC; a reader's own zone says more.
  const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  function localTimes(root) {
    for (const time of all("time:not([title])", root)) {
      time.title = time.textContent;
      time.textContent = shown.format(new Date(time.dateTime));
    }
  }

  // What needs scripts is hidden until there are some.
  function reveal(root) {
    for (const it of all("[data-scripted]", root)) it.hidden = false;
  }

  function count() {
    const changes = document.getElementById("changes");
    if (!changes) return;
    const typed = document.getElementById("ids").value.split(/[\s,;]+/).filter(Boolean).length;
    const added = all("input[name=add]:checked").length + typed;
    const taken = all("input[name=keep]:not(:checked)").length;
    const said = [];
    if (added) said.push(`${added} to add`);
    if (taken) said.push(`${taken} to take away`);
    const text = said.join(", ") || "No changes yet";
    if (changes.textContent !== text) changes.textContent = text;
  }

  function narrow(field) {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = all("li", document.getElementById(field.getAttribute("aria-controls")));
    let left = 0;
    for (const row of rows) {
      const name = row.querySelector(".name").textContent.toLowerCase();
      row.hidden = !words.every((word) => name.includes(word));
      left += row.hidden ? 0 : 1;
    }
    document.getElementById("narrowed").textContent = words.length ? `${left} of ${rows.length} shown` : "";
  }

  document.addEventListener("input", (event) => {
    if (event.target.matches("[data-narrow]")) narrow(event.target);
    if (event.target.matches("[data-all]")) {
      for (const box of all("input[name=id]", event.target.form)) box.checked = event.target.checked;
    }
    count();
  });

  // --- the stream of events ---

  let waiting = []; // messages held back while paused
  let heard = 0;
  let told = null;
  const paused = () => document.getElementById("pause")?.getAttribute("aria-pressed") === "true";
  const state = (text, on) => {
    const live = document.getElementById("live");
    if (!live) return;
    live.textContent = text;
    live.classList.toggle("on", on);
  };

  function tell() { // at most every few seconds: a screen reader reads it aloud
    if (told) return;
    told = setTimeout(() => {
      told = null;
      const status = document.getElementById("heard");
      if (status && heard) status.textContent = `${heard} new ${heard === 1 ? "event" : "events"}`;
      heard = 0;
    }, 4000);
  }

  function trim(list) {
    for (const old of all("li", list).slice(KEPT)) old.remove();
    document.getElementById("none")?.remove();
  }

  document.addEventListener("htmx:sseOpen", () => state("Live", true));
  document.addEventListener("htmx:sseError", () => state("Connection lost; trying again", false));
  document.addEventListener("htmx:sseBeforeMessage", (event) => {
    if (!paused()) return;
    event.preventDefault();
    waiting = [...waiting, event.detail.data].slice(-KEPT);
    state(`Paused; ${waiting.length} held back`, false);
  });
  document.addEventListener("htmx:sseMessage", (event) => {
    heard += (event.detail.data.match(/<li/g) || []).length;
    tell();
    trim(event.target);
    localTimes(event.target);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("#pause");
    if (!button) return;
    const now = !paused();
    button.setAttribute("aria-pressed", String(now));
    state(now ? "Paused" : "Live", !now);
    const list = document.getElementById("events");
    if (now || !waiting.length) return;
    for (const html of waiting) htmx.swap(list, html, { swapStyle: "afterbegin" });
    waiting = [];
    trim(list);
    localTimes(list);
  });

  // --- what htmx brings ---

  document.addEventListener("htmx:load", (event) => {
    const root = event.target.parentElement || document;
    localTimes(root);
    reveal(root);
    count();
  });
  // The bar to save with stands over the page: what is scrolled to shall stand above it, however much it says.
  function keepAbove() {
    const bar = document.querySelector(".save");
    if (bar) document.documentElement.style.scrollPaddingBottom = `${bar.offsetHeight + 8}px`;
  }
  window.addEventListener("resize", keepAbove);
  // A save renews the list around whoever looks at it; they stay where they are, and see what came of it.
  let place = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id !== "outcome") return;
    place = { page: window.scrollY, list: document.getElementById("enrolled")?.scrollTop ?? 0 };
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (!place || event.target.id !== "outcome") return;
    document.getElementById("enrolled")?.scrollTo(0, place.list);
    window.scrollTo(0, place.page);
    keepAbove();
    const wrong = document.getElementById("ids-wrong") && document.getElementById("ids-field");
    (wrong || document.querySelector(".save")).scrollIntoView({ block: "nearest" });
    place = null;
  });

  // The overview renews itself, unless somebody reads the numbers or nobody sees it.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id === "overview" && (document.hidden || event.target.querySelector("details[open]"))) event.preventDefault();
  });

  const unreachable = (event) => {
    const asOf = document.getElementById("as-of");
    if (asOf) asOf.textContent = "The server cannot be reached; these numbers are old.";
    const place = document.getElementById("outcome");
    if (!place) return;
    place.textContent =
      event.detail.requestConfig?.verb === "post"
        ? "The server cannot be reached; what you saved may have arrived. Load the page again."
        : "The server cannot be reached. Load the page again.";
  };
  document.addEventListener("htmx:sendError", unreachable);
  document.addEventListener("htmx:timeout", unreachable);
  document.addEventListener("DOMContentLoaded", () => {
    keepAbove();
    localTimes(document);
    reveal(document);
    count();
  });
})();
