// What pages do beyond their HTML: the visitor's own time, whether a page that refreshes itself still does, and copying.
"use strict";
(() => {
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const QUIET = 10_000; // milliseconds without an answer after which a page is stale
  let answered = Date.now();

  const MOMENT = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/;
  const spell = (node) => { // a moment in a sentence
    const found = node.data.match(MOMENT);
    if (!found) return;
    const rest = node.splitText(found.index);
    const time = Object.assign(document.createElement("time"), { dateTime: found[0], textContent: local.format(new Date(found[0])) });
    spell(rest.splitText(found[0].length));
    rest.replaceWith(time);
  };

  const shifted = (text, zone) => { // a time without a zone: from UTC to the visitor's, or back
    if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?$/.test(text)) return text;
    const at = new Date(text + (zone === "utc" ? "" : "Z"));
    const offset = zone === "utc" ? 0 : at.getTimezoneOffset() * 60_000;
    return new Date(at - offset).toISOString().slice(0, text.length);
  };
  document.addEventListener("formdata", ({ target, formData }) => { // forms send UTC
    for (const each of target.querySelectorAll("[data-time]")) formData.set(each.name, shifted(each.value, "utc"));
  });

  const dress = () => {
    for (const each of document.querySelectorAll("[data-times]")) {
      [...each.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).forEach(spell);
    }
    for (const each of document.querySelectorAll("time .at")) {
      each.textContent = local.format(new Date(each.parentElement.dateTime));
    }
    for (const each of document.querySelectorAll(".wide > a:not(:has(wbr)), .url:not(:has(wbr))")) { // a URL goes on after a slash
      const parts = each.textContent.split(/(?<=[/?&])/);
      each.replaceChildren(...parts.flatMap((part) => [part, document.createElement("wbr")]));
    }
    for (const each of document.querySelectorAll("button[data-all]")) each.hidden = false;
    for (const each of document.querySelectorAll("button[data-copy]")) {
      each.hidden = !navigator.clipboard; // only https and localhost have it
    }
  };

  const mark = (fresh) => {
    const shown = document.querySelector("[data-live]");
    if (!shown) return;
    const text = fresh ? "live" : `stale since ${clock.format(answered)}`;
    shown.hidden = !document.querySelector("[hx-trigger]");
    if (shown.textContent === text) return; // a screen reader reads each change
    shown.textContent = text;
    shown.className = `badge ${fresh ? "good" : "bad"}`;
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const each of document.querySelectorAll("[data-time]")) each.value = shifted(each.defaultValue);
    for (const each of document.querySelectorAll("[data-zone]")) each.remove();
    dress();
    mark(true);
  });
  document.addEventListener("htmx:afterSwap", dress);
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful) answered = Date.now();
    mark(event.detail.successful);
  });
  setInterval(() => { if (Date.now() - answered > QUIET) mark(false); }, 1000);

  document.addEventListener("click", async (event) => {
    const boxes = [...event.target.closest("button[data-all]")?.form.querySelectorAll("[name=id]") ?? []];
    const all = !boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = all;
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.firstChild.textContent = "Copied";
  });
})();
