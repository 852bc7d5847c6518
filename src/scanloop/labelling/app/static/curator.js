// The curator's page: the queue, the money, how readers agree, and whether to stop or to go on.

import { get, post, wait } from "./api.js";
import { isAway, onReturn } from "./away.js";
import { element, notice } from "./panels.js";
import { money, number, percent, say } from "./words.js";

const AGAIN = 10_000;
const one = (selector) => document.querySelector(selector);
const words = (...names) => names.map((name) => say("curate", name));
const kappa = (value) => (value === null ? "–" : number(value, 2));
const share = (part, whole) => (whole ? `${part} (${percent(part / whole)})` : "–");

function table(selector, rows, heads) {
  const place = one(selector);
  const line = (cells, tag) => {
    const row = element("tr");
    row.append(...cells.map((text, index) => element(index && tag === "td" ? "td" : "th", String(text), { class: index ? "number" : "" })));
    return row;
  };
  const body = element("tbody");
  body.append(...rows.map((cells) => line(cells, "td")));
  place.replaceChildren(body);
  if (!heads) return;
  const head = element("thead");
  head.append(line(heads, "th"));
  place.prepend(head);
}

function showWave(wave) {
  one("#wave").textContent = wave
    ? `${say("curate", "wave", { number: wave.wave })}, ${say("curate", wave.is_open ? "open" : "closed")}`
    : say("curate", "none");
  for (const button of document.querySelectorAll("#raise button, #close button")) button.disabled = !wave?.is_open;
  if (!wave) return;
  const left = wave.budget_cents - wave.spent_cents - wave.held_cents;
  const untouched = Math.max(0, wave.tasks - wave.read - wave.begun);
  const [read, begun, none, disputed] = words("read", "begun", "untouched", "disputed");
  table("#queue", [[read, share(wave.read, wave.tasks)], [begun, wave.begun], [none, untouched], [disputed, wave.disputed]]);
  const [budget, spent, held, rest] = words("budget", "spent", "held", "left");
  table("#money", [[spent, money(wave.spent_cents)], [held, money(wave.held_cents)], [rest, money(left)], [budget, money(wave.budget_cents)]]);
  one("#read-share").value = wave.tasks ? wave.read / wave.tasks : 0;
  one("#spent-share").value = wave.budget_cents ? wave.spent_cents / wave.budget_cents : 0;
}

function showReaders(agreement, paces) {
  const heads = words("name", "readings", "last_hour", "unsure", "bad_image", "withdrawn", "agreed");
  const rows = agreement.readers
    .filter((reader) => reader.readings || reader.withdrawn)
    .map((reader) => [
      reader.name,
      reader.readings,
      paces[reader.name] ?? 0,
      share(reader.unsure, reader.readings),
      share(reader.bad_image, reader.readings),
      reader.withdrawn,
      share(reader.agreed, reader.read_with_others),
    ]);
  table("#readers", rows, heads);
  const [fleiss, shared] = words("fleiss", "shared");
  one("#fleiss").textContent = agreement.images ? `${fleiss}: ${kappa(agreement.fleiss)} · ${shared}: ${agreement.images}` : say("curate", "no_pairs");
  const pairs = agreement.pairs.map((pair) => [pair.readers.join(" · "), pair.images, percent(pair.share), kappa(pair.kappa)]);
  table("#pairs", pairs, pairs.length ? words("pair", "images", "share", "kappa") : null);
}

function showWorth(forecast) {
  const place = one("#worth");
  if (!forecast) return place.replaceChildren(element("p", say("curate", "no_forecast"), { class: "small" }));
  const verdict = forecast.verdict === "stop" ? "stop" : "go_on";
  const bounds = [forecast.f1_per_eur, forecast.low, forecast.high];
  const [value, low, high] = bounds.map((bound) => (bound === null ? "–" : number(100 * bound, 3)));
  place.replaceChildren(
    element("p", forecast.f1_per_eur === null ? "" : say("curate", "worth_text", { value, low, high })),
    element("p", say("curate", verdict), { class: verdict === "stop" ? "warning" : "" }),
    element("p", forecast.f1_per_eur === null ? forecast.why : "", { class: "small" }),
  );
}

async function look() {
  const found = await get("/api/curator/overview");
  showWave(found.wave);
  showReaders(found.agreement, found.last_hour);
  showWorth(found.forecast);
}

async function act(path, body, said) {
  try {
    await post(path, body);
    notice(say("curate", said));
    await look();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  if (error.code === 401) notice(say("status", "login"), true);
  else if (error.isPassing) notice(say("status", "offline"), true);
  else notice(say("status", "refused", { message: error.message }), true);
}

one("#raise").addEventListener("submit", (event) => {
  event.preventDefault();
  act("/api/curator/budget", { budget_eur: one("#budget").value.replace(",", ".") }, "raised");
});
one("#close").addEventListener("submit", (event) => {
  event.preventDefault();
  one("#sure").showModal();
});
one("#sure").addEventListener("close", () => {
  if (one("#sure").returnValue === "yes") act("/api/curator/close", undefined, "closed_now");
});
onReturn(() => look().catch(fail));
for (;;) {
  if (!isAway()) await look().catch(fail);
  await wait(AGAIN);
}
