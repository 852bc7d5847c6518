// The adjudicator's page: an image whose readings differ, what was read, and what counts.

import { get, image, post, wait } from "./api.js";
import { isAway } from "./away.js";
import { listen, viewerActions } from "./keys.js";
import * as panels from "./panels.js";
import { decode, Viewer } from "./viewer.js";
import { named, say } from "./words.js";

const [AGAIN, GONE, AHEAD] = [10_000, 1500, 3];
const one = (selector) => document.querySelector(selector);
const viewer = new Viewer(one("#image"));
const decided = new Set(); // a list that was under way when it was asked for may hold them still
const pixels = new Map();
let disputes = [];
let shown = null;
let isBusy = false;
let seen = "nothing"; // of what is shown: "nothing" yet, its "image", or that it is "missing"

const picture = (task) => {
  if (!pixels.has(task)) {
    const loading = image(`/images/${task}`).then(decode);
    loading.catch(() => pixels.delete(task));
    pixels.set(task, loading);
  }
  return pixels.get(task);
};

async function look() {
  const found = await get("/api/disputes");
  disputes = found.first.filter((dispute) => !decided.has(dispute.task));
  one("#waiting").textContent = say("adjudicate", "waiting", { count: found.count });
  const still = disputes.find((dispute) => dispute.task === shown?.task);
  if (still) disputes = [still, ...disputes.filter((dispute) => dispute !== still)];
  for (const dispute of disputes.slice(0, AHEAD)) picture(dispute.task).catch(() => {});
  const isGone = shown !== null && !still && !decided.has(shown.task);
  isBusy ||= isGone; // a key that was meant for the image that is gone shall not answer the next one
  await show();
  if (!isGone) return;
  if (shown) panels.notice(say("adjudicate", "gone"), true);
  await wait(GONE);
  isBusy = false;
  if (shown) panels.notice(null);
}

async function show() {
  const dispute = disputes[0] ?? null;
  if (dispute && dispute.task === shown?.task) return;
  shown = dispute;
  seen = "nothing";
  panels.closeNeighbours();
  if (!dispute) {
    viewer.show(null);
    one("#readings").replaceChildren();
    one("#answers").replaceChildren();
    panels.notice(say("adjudicate", "none"));
    return;
  }
  const boxes = dispute.answers.map((answer, index) => {
    const box = panels.element("div", say("adjudicate", "reader", { letter: String.fromCharCode(65 + index) }));
    box.append(panels.element("strong", named(answer)));
    return box;
  });
  one("#readings").replaceChildren(...boxes);
  panels.answerButtons(dispute.classes, give);
  one("#image").setAttribute("aria-label", say("status", "image", { task: dispute.task }));
  try {
    const loaded = await picture(dispute.task);
    if (shown !== dispute) return;
    viewer.show(loaded);
    seen = "image";
    panels.notice(null);
  } catch {
    if (shown !== dispute) return;
    seen = "missing";
    viewer.show(null);
    panels.notice(say("status", "missing"), true);
  }
}

async function give(answer) {
  const dispute = shown;
  const given = typeof answer === "number" ? dispute?.classes[answer] : answer;
  if (isBusy || !dispute || given === undefined) return;
  if (seen !== "image" && !(seen === "missing" && given === "bad image")) return;
  isBusy = true;
  try {
    await post(`/api/disputes/${dispute.task}/decide`, { answer: given, comment: one("#comment").value });
  } catch (error) {
    return fail(error);
  } finally {
    isBusy = false;
  }
  panels.tell(say("adjudicate", "decided", { answer: named(given) }));
  decided.add(dispute.task);
  pixels.delete(dispute.task);
  one("#comment").value = "";
  disputes = disputes.filter((other) => other !== dispute);
  await show();
  one("#image").dataset.answered = Number(one("#image").dataset.answered ?? 0) + 1;
  await look().catch(fail);
}

function fail(error) {
  if (error.code === 401) panels.notice(say("status", "login"), true);
  else if (error.isPassing) panels.notice(say("status", "offline"), true);
  else panels.notice(say("status", "refused", { message: error.message }), true);
}

const actions = {
  ...viewerActions(viewer),
  neighbours: () => panels.toggleNeighbours(shown?.task).catch(fail),
  guidelines: panels.toggleGuidelines,
  help: panels.toggleHelp,
  comment: () => one("#comment").focus(),
  escape: (field) => (field ? one("#image").focus() : panels.closePanels()),
};
panels.connectTools(viewer, actions);
listen(actions, give);
for (;;) {
  if (!isBusy && !isAway()) await look().catch(fail);
  await wait(AGAIN);
}
