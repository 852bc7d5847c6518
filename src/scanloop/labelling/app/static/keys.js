// Keys of the pages with an image. Digits are taken by their place, so that they work on French keyboards, too.

const STEP = 60;

function moveChoice(by) {
  const buttons = [...document.querySelectorAll("#answers button")];
  const at = buttons.indexOf(document.activeElement);
  buttons.at(at < 0 ? (by > 0 ? 0 : -1) : (at + by) % buttons.length)?.focus();
}

/** Actions that every viewer has, by what asks for them. */
export function viewerActions(viewer) {
  const step = (x, y) => (viewer.isZoomed ? viewer.panBy(x * STEP, y * STEP) : moveChoice(-x - y));
  return {
    "zoom-in": () => viewer.zoomBy(1.25),
    "zoom-out": () => viewer.zoomBy(1 / 1.25),
    fit: () => viewer.fit(),
    invert: () => viewer.invert(),
    left: () => step(1, 0),
    right: () => step(-1, 0),
    up: () => step(0, 1),
    down: () => step(0, -1),
    "contrast-up": () => viewer.adjust(viewer.brightness, viewer.contrast + 8),
    "contrast-down": () => viewer.adjust(viewer.brightness, viewer.contrast - 8),
    brighter: () => viewer.adjust(viewer.brightness + 8, viewer.contrast),
    darker: () => viewer.adjust(viewer.brightness - 8, viewer.contrast),
  };
}

const KEYS = {
  "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", f: "fit", i: "invert", w: "contrast-up", s: "contrast-down", d: "brighter", a: "darker",
  arrowleft: "left", arrowright: "right", arrowup: "up", arrowdown: "down",
  z: "undo", p: "word", n: "neighbours", g: "guidelines", "?": "help", escape: "escape", c: "comment",
};

/** Whether keys act on their own: a choice of this browser, for those who speak to it. */
function switchOf(box) {
  box.checked = localStorage.getItem("scanloop-keys") !== "off";
  box.addEventListener("change", () => localStorage.setItem("scanloop-keys", box.checked ? "on" : "off"));
  return box;
}

/** Call `actions` by name, and `give` with the place of a class, "unsure" or "bad image". */
export function listen(actions, give) {
  const keysOn = switchOf(document.querySelector("#keys-on"));
  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("textarea, input:not([type=range])");
    if (event.ctrlKey || event.altKey || event.metaKey || (field && event.key !== "Escape")) return;
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    const key = event.key.toLowerCase();
    if (!keysOn.checked && key !== "escape") return;
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
    const answer = digit ? Number(digit) - 1 : { u: "unsure", b: "bad image" }[key];
    if (answer !== undefined) {
      event.preventDefault();
      if (!event.repeat) give(answer, event.timeStamp); // a key that is held down answers one image, not several
      return;
    }
    const action = actions[KEYS[key]];
    if (!action) return;
    event.preventDefault();
    action(field);
  });
}
