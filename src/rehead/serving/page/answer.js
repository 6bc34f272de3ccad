// An answer as people read it: what is named, how probable each class is, and what to do where it is in doubt.

import { isolated, make, percent } from "./dom.js";

const FEW = 5; // bars at first
export const MANY = 200; // bars at most: nobody reads more

/** {label, probability} of all that was said, the most probable first. */
export function ranked(row) {
  if (row.top) return row.top;
  const all = Object.entries(row.probabilities ?? {}).map(([label, probability]) => ({ label, probability }));
  return all.sort((a, b) => b.probability - a.probability);
}

/** A number as rehead predict writes it: eight figures, since a float32 has seven or eight. */
export function number(value) {
  const rounded = Number(value.toPrecision(8));
  return Math.abs(rounded) < 1e8 ? String(rounded) : rounded.toExponential(); // or it would look exact
}

/** The answer in a line. */
export function named(row) {
  if (row.value !== undefined) return make("span", { class: "value", text: number(row.value) });
  const names = row.labels ?? [row.label];
  if (names.length === 0) return make("span", { class: "none", text: "none of its labels" });
  return make("span", {}, ...names.flatMap((name, i) => (i ? [", ", isolated(name)] : [isolated(name)])));
}

/** The same as text. */
export const namedText = (row) => named(row).textContent;

/** What is doubted of an answer, each with what to do. */
export function doubts(row, model) {
  const said = [];
  if (row.unsure)
    said.push([
      "unsure",
      model.unsure_below > 1
        ? "On photos it had not seen, no answer of this model was reliable enough. Look for yourself."
        : `Answers below ${percent(model.unsure_below)} are not reliable enough. Look for yourself.`,
    ]);
  if (row.unfamiliar) said.push(["unfamiliar", "It is unlike the photos learned from, so the answer is a guess. If it belongs here, teach the model such photos."]);
  if (said.length === 0) return null;
  return make("ul", { class: "doubts" }, ...said.map(([name, text]) => make("li", {}, make("span", { class: `chip ${name}`, text: name }), ` ${text}`)));
}

/** The bars of an answer: a few, or all. Null where it is a number. */
export function bars(row, model, isWhole) {
  if (row.value !== undefined) return null;
  const names = new Set(row.labels ?? [row.label]);
  const all = ranked(row);
  const list = isWhole ? all.slice(0, MANY) : all.filter(({ label }, i) => i < FEW || (row.labels && names.has(label)));
  return make("ul", { class: "bars" }, ...list.map((one) => bar(one, names.has(one.label), thresholdOf(one.label, model))));
}

/** How many classes are not among the first bars. */
export const nMore = (row, model) => (row.value !== undefined ? 0 : Math.min(MANY, model.classes.length) - bars(row, model, false).children.length);

/** Of several labels, the probability from which on one is named. */
const thresholdOf = (label, model) => (model.task === "multilabel" ? model.thresholds[model.classes.indexOf(label)] : null);

function bar({ label, probability }, isNamed, threshold) {
  const fill = make("span", { class: "fill" });
  fill.style.width = `${100 * probability}%`; // by the object model: the page's policy forbids style attributes
  const rail = make("span", { class: "rail", "aria-hidden": "true" }, fill);
  if (threshold !== null && threshold !== undefined) {
    const mark = make("span", { class: "mark", title: `named from ${percent(threshold)} on` });
    mark.style.left = `${100 * threshold}%`;
    rail.append(mark);
  }
  return make("li", { class: isNamed ? "named" : null }, make("span", { class: "label" }, isolated(label)), make("span", { class: "share", text: percent(probability) }), rail);
}
