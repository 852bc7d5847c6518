// What opens beside the image: keys, guidelines, alike images. And the tools, which the reader's and the adjudicator's page share.

import { post } from "./api.js";
import { say } from "./words.js";

const one = (selector) => document.querySelector(selector);

export function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function notice(text, isWarning = false) {
  const place = one("#notice");
  if (place.textContent !== (text ?? "")) place.textContent = text ?? "";
  place.hidden = !text;
  place.classList.toggle("warning", isWarning);
}

/** Tell those who listen to the page and do not see it. */
export function tell(text) {
  one("#said").textContent = text;
}

export function toggleHelp() {
  const dialog = one("#help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function open(panel, isOpen) {
  panel.hidden = !isOpen;
  for (const button of document.querySelectorAll(`[aria-controls="${panel.id}"]`)) button.setAttribute("aria-expanded", String(isOpen));
}

export function toggleGuidelines() {
  const panel = one("#guidelines");
  open(panel, panel.hidden);
  if (!panel.hidden) panel.focus();
}

export function closePanels() {
  const wereOpen = [one("#guidelines"), one("#neighbours")].some((panel) => !panel.hidden);
  open(one("#guidelines"), false);
  open(one("#neighbours"), false);
  return wereOpen;
}

export const closeNeighbours = () => open(one("#neighbours"), false);

/** What the feature repository knows of an image, in words. */
function told({ source, cluster, wave }) {
  const parts = [];
  if (source !== null) parts.push(source === "given" ? say("neighbours", "given") : say("neighbours", "read"));
  if (cluster !== null) parts.push(say("neighbours", "cluster", { cluster }));
  if (wave !== null) parts.push(say("neighbours", "wave", { wave }));
  return parts.join(" · ");
}

export async function toggleNeighbours(task) {
  const panel = one("#neighbours");
  if (!panel.hidden || task === undefined) return open(panel, false);
  const { labels, known } = await post(`/api/tasks/${task}/neighbours`);
  const pictures = labels.map((label, index) => {
    const figure = element("figure");
    const alt = say("neighbours", "alt", { number: index + 1, label });
    figure.append(element("img", undefined, { src: `/images/${task}/neighbours/${index}`, alt }));
    figure.append(element("figcaption", say("neighbours", "caption", { label })));
    if (known[index]) figure.append(element("figcaption", told(known[index]), { class: "known" }));
    return figure;
  });
  const place = panel.querySelector(".pictures");
  place.replaceChildren(...(pictures.length ? pictures : [element("p", say("status", "neighbours_none"))]));
  open(panel, true);
}

/** Buttons for the classes and for the two answers that give no label; `give` is called with the answer. */
export function answerButtons(classes, give) {
  const entries = classes.map((name, index) => [index < 9 ? String(index + 1) : "", name, name, ""]);
  entries.push(["U", say("answers", "unsure"), "unsure", "apart"], ["B", say("answers", "bad_image"), "bad image", "apart"]);
  const buttons = entries.map(([key, name, answer, kind]) => {
    const button = element("button", undefined, { "data-answer": answer, class: kind });
    button.append(element("kbd", key || "·"), name);
    button.addEventListener("click", () => give(answer));
    return button;
  });
  one("#answers").replaceChildren(...buttons);
}

/** Connect tools and sliders with the viewer. */
export function connectTools(viewer, actions) {
  const [brightness, contrast] = [one("#brightness"), one("#contrast")];
  const adjust = () => viewer.adjust(Number(brightness.value), Number(contrast.value));
  brightness.addEventListener("input", adjust);
  contrast.addEventListener("input", adjust);
  viewer.onChange = () => {
    brightness.value = viewer.brightness;
    contrast.value = viewer.contrast;
    one('[data-do="invert"]').setAttribute("aria-pressed", String(viewer.isInverted));
  };
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]?.());
  }
}
