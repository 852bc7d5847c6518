// Texts of the page, handed over by the server in the reader's language.

const texts = JSON.parse(document.body.dataset.texts);

/** The text of a section and name, with its {names} filled in. */
export function say(section, name, values = {}) {
  return texts[section][name].replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

const euros = new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency: "EUR" });
const percents = new Intl.NumberFormat(document.documentElement.lang, { style: "percent", maximumFractionDigits: 1 });

export const money = (cents) => euros.format(cents / 100);
export const percent = (share) => percents.format(share);
export const number = (value, digits) =>
  value.toLocaleString(document.documentElement.lang, { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** An answer as people say it: a class's own name, or the words for the two answers that give no label. */
export function named(answer) {
  return { unsure: say("answers", "unsure"), "bad image": say("answers", "bad_image") }[answer] ?? answer;
}
