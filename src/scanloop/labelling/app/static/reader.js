// The reader's page: shows the next image at once, sends answers behind it, and says what goes on.

import { get, post } from "./api.js";
import { isAway, onReturn } from "./away.js";
import { Hand } from "./hand.js";
import { listen, viewerActions } from "./keys.js";
import { Outbox } from "./outbox.js";
import * as panels from "./panels.js";
import { Viewer } from "./viewer.js";
import { money, named, number, percent, say } from "./words.js";

const KEPT = 20;
const one = (selector) => document.querySelector(selector);
const isBeforehand = document.body.dataset.beforeAnswer === "yes";

const viewer = new Viewer(one("#image"));
const past = []; // what was answered last: the task, its answer and its pixels, to be taken back
let shown = null; // the item on the canvas
let classes = [];
let isBusy = false;
let isWordOn = false;
let hasEnded = false;
let keyAt = null; // when the last answer's key was pressed, until the next image is drawn
let said = null; // a message that outlives the next image

const outbox = new Outbox({
  changed: showSaved,
  saved: (entry) => {
    showProgress();
    hand.fill();
    if (isWordOn) reveal(entry.task, entry.answer);
  },
  refused: (entry, refusal) => {
    hand.drop(entry.task);
    show();
    hand.fill();
    warn(refusal.kind === "lease" ? say("status", "lease") : say("status", "refused", { message: refusal.message }));
  },
  ended,
});

const hand = new Hand(() => outbox.tasks, {
  changed: () => show(),
  nothing: (none) => {
    show();
    panels.notice(say("nothing", none.why, { amount: none.left_cents === null ? "" : money(none.left_cents) }));
    showProgress();
  },
  offline: (isOffline) => {
    if (isOffline) warn(say("status", "offline"));
    else if (said === say("status", "offline")) warn(null);
  },
  ended,
});

function warn(text) {
  said = text;
  if (text || shown?.pixels) panels.notice(text, Boolean(text));
}

function ended() {
  hasEnded = true;
  panels.notice(say("status", "login"), true);
  const link = panels.element("a", say("bar", "read"), { href: "/login" });
  one("#notice").append(" ", link);
}

/** Bring the current task onto the canvas; what is there already stays. */
function show() {
  const item = hand.current;
  if (item && item === shown && item.pixels === viewer.pixels && item.pixels) return;
  shown = item ?? null;
  panels.closeNeighbours();
  if (!item || !item.pixels) {
    viewer.show(null);
    one("#image").setAttribute("aria-label", say("status", "loading"));
    panels.notice(item?.isMissing ? say("status", "missing") : say("status", "loading"), Boolean(item?.isMissing));
    if (!item) one("#reason").textContent = "";
  } else {
    viewer.show(item.pixels);
    one("#image").setAttribute("aria-label", say("status", "image", { task: item.task }));
    if (!hasEnded) panels.notice(said, true);
    measure();
  }
  if (!item) return;
  if (classes.join("\n") !== item.classes.join("\n")) {
    classes = item.classes;
    panels.answerButtons(classes, give);
  }
  one("#reason").textContent = say("reasons", item.reason, { percent: item.reason_percent, words: item.reason_words });
  if (isWordOn && isBeforehand) reveal(item.task, null);
}

/** Write down in the browser's own record how long the next image took, its frame included. */
function measure() {
  const start = keyAt;
  keyAt = null;
  if (start === null) return;
  const drawn = () => performance.measure("key to next image", { start, end: performance.now() });
  requestAnimationFrame(() => requestAnimationFrame(drawn));
}

/** Answer the image on the canvas: by the place of a class, or in words. */
function give(answer, at = performance.now()) {
  const item = shown;
  const given = typeof answer === "number" ? classes[answer] : answer;
  if (isBusy || hasEnded || !item || item !== hand.current || given === undefined) return;
  if (!item.pixels && !(item.isMissing && given === "bad image")) return;
  keyAt = at;
  said = null;
  past.push({ task: item.task, answer: given, pixels: item.pixels });
  past.splice(0, past.length - KEPT);
  panels.tell(say("status", "answered", { answer: named(given) }));
  hand.drop(item.task);
  hand.refresh();
  show();
  one("#image").dataset.answered = Number(one("#image").dataset.answered ?? 0) + 1;
  outbox.add(item.task, given, item.token);
  hand.fill();
}

async function undo() {
  const last = past.at(-1);
  if (isBusy || hasEnded) return;
  if (!last) return warn(say("status", "nothing_to_undo"));
  isBusy = true;
  try {
    await outbox.drained();
    const task = await post(`/api/tasks/${last.task}/withdraw`);
    past.pop();
    hand.putBack(task, last.pixels);
    show();
    panels.notice(say("status", "undone"));
    one("#word").replaceChildren();
    showProgress();
  } catch (error) {
    if (error.code === 401) ended();
    else if (error.isPassing) warn(say("status", "offline"));
    else warn(say("status", error.kind === "lease" ? "nothing_to_undo" : "decided_already"));
  } finally {
    isBusy = false;
  }
}

async function reveal(task, answer) {
  try {
    const { probabilities } = await post(`/api/tasks/${task}/reveal`);
    const heading = answer === null ? say("answers", "word_of_this") : say("answers", "word_of_last", { answer: named(answer) });
    const rows = Object.entries(probabilities ?? {}).map(([name, share]) => {
      const row = panels.element("div", undefined, { class: "share" });
      row.append(panels.element("span", name), panels.element("span", percent(share)), panels.element("progress", undefined, { max: 1, value: share, "aria-label": name }));
      return row;
    });
    const lines = rows.length ? rows : [panels.element("p", say("answers", "word_none"))];
    if (isWordOn) one("#word").replaceChildren(panels.element("p", heading), ...lines);
  } catch (error) {
    if (!error.isPassing && error.code !== 401) one("#word").replaceChildren();
  }
}

async function toggleWord() {
  isWordOn = !isWordOn;
  one('[data-do="word"]').setAttribute("aria-pressed", String(isWordOn));
  showWordHint();
  if (!isWordOn) return;
  await outbox.drained();
  if (isBeforehand && shown) await reveal(shown.task, null);
  else if (past.length) await reveal(past.at(-1).task, past.at(-1).answer);
}

function showWordHint() {
  const hint = isWordOn ? "word_on" : isBeforehand ? "word_before" : "word_hidden";
  one("#word").replaceChildren(panels.element("p", say("answers", hint)));
}

function showSaved(count, isStuck) {
  const place = one("#saved");
  place.textContent = count ? say("status", "unsaved", { count }) : say("status", "saved");
  place.classList.toggle("waiting", count > 0);
  if (isStuck) warn(say("status", "offline"));
  else if (!count && said === say("status", "offline")) warn(null);
}

let asked = -Infinity;
async function showProgress() {
  if (performance.now() - asked < 1500 || hasEnded) return;
  asked = performance.now();
  const far = await get("/api/progress").catch(() => null);
  if (!far) return;
  one("#progress").textContent = say("status", "progress", { read: far.read, tasks: far.tasks, mine: far.mine });
  one("#money").textContent = say("status", "money", { amount: money(far.left_cents) });
  one("#pace").textContent = say("status", "pace", { hour: far.last_hour, minute: number(far.last_ten_minutes / 10, 1) });
}

const actions = {
  ...viewerActions(viewer),
  undo,
  word: toggleWord,
  neighbours: () => panels.toggleNeighbours(shown?.task).catch(() => {}),
  guidelines: panels.toggleGuidelines,
  help: panels.toggleHelp,
  escape: () => panels.closePanels() || panels.notice((said = null)),
};
panels.connectTools(viewer, actions);
listen(actions, give);
window.addEventListener("beforeunload", (event) => {
  if (outbox.count && !hasEnded) event.preventDefault();
});
/** What is renewed while somebody sits here, and as soon as somebody sits here again. */
function renew() {
  if (isAway() || hasEnded) return;
  if (hand.refresh()) show();
  hand.fill();
  showProgress();
}
setInterval(renew, 5000);
onReturn(renew);
showWordHint();
showProgress();
outbox.send();
hand.fill();
