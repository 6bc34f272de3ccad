// The page: what is served, the pictures and their answers, and what can be done with all of them. The parts are in files of
// their own: intake, camera, sending, card, correction, csv.

import * as camera from "./camera.js";
import { Card } from "./card.js";
import { asCsv } from "./csv.js";
import { byId, counted, harmless, isolated, make, notice, say } from "./dom.js";
import * as intake from "./intake.js";
import { Sending, TRIES } from "./sending.js";
import { described } from "./service.js";

const TOP = 25; // classes asked for at once; the rest on demand
const NEAREST = 5;
const WAITS = { busy: "The service is busy, waiting:", away: "The service cannot be reached, trying again:" };
const NAMED = 12; // classes that are counted in a line

let served = { models: [], feedback: false, limits: { images: 8, body_bytes: 16e6 } };
let model = null;
let choices = 0; // of a model: what is looked up for an earlier one is passed over
let shown = { kind: "all", label: "" };
let pictures = []; // {file, name, row, why, card}: the answer, or why there is none

const sending = new Sending(
  () => ({ model: model.name, top: Math.min(TOP, Math.max(1, model.classes.length)), nearest: model.neighbours ? NEAREST : 0 }),
  () => served.limits,
  { answered: onAnswer, failed: onFailure, moved: onMove },
);

async function begin() {
  const known = found();
  intake.listen((some) => known.then(() => add(some), () => {})); // what is dropped early waits, else the browser would open it
  camera.listen(add);
  watch();
  try {
    await known;
  } catch (error) {
    byId("about").textContent = "";
    return trouble(`${error.message} Load this page again.`);
  }
  for (const button of document.querySelectorAll("#intake button")) button.disabled = false;
  byId("which").hidden = served.models.length < 2;
  byId("model").append(...served.models.map(({ name }) => make("option", { text: name, value: name })));
  byId("model").addEventListener("change", ({ target }) => choose(target.value));
}

/** Asks what is served for the first time, and again where the service cannot be reached. */
async function found() {
  for (let tries = 1; ; tries++) {
    try {
      return await look();
    } catch (error) {
      if (error.status !== 0 || tries === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** (tries - 1)));
    }
  }
}

/** Asks what is served, also after a bundle was replaced. name: of the model to go on with, by default the same. */
async function look(name) {
  const mine = choices;
  const found = await described();
  if (mine !== choices) return;
  served = found;
  model = served.models.find((one) => one.name === (name ?? model?.name)) ?? served.models[0];
  const known = model.classes;
  const few = known.slice(0, 8).join(", ") + (known.length > 8 ? ` and ${known.length - 8} more` : "");
  const does = {
    classification: `Names one of ${counted(known.length, "class")}: ${few}.`,
    multilabel: `Gives any number of ${counted(known.length, "label")}: ${few}.`,
    regression: "Gives each picture a number.",
  }[model.task];
  const headline = model.headline ? ` ${model.headline[0].toUpperCase()}${model.headline.slice(1)}.` : "";
  byId("model-name").textContent = served.models.length > 1 ? "" : model.name; // else the choice says it
  byId("about").textContent = does + headline;
  byId("what-classes").textContent = model.task === "regression" ? "its answers" : counted(known.length, model.task === "multilabel" ? "label" : "class");
  byId("heat").hidden = !model.explains;
  byId("means-heat").hidden = !model.explains;
  byId("means-unsure").hidden = model.unsure_below === null;
  byId("means-unfamiliar").hidden = model.unfamiliar_above === null;
  if (served.feedback) byId("kept").textContent = "Pictures go to this service alone. It keeps those that you correct, and no others.";
  byId("classes").replaceChildren(...known.map((label) => make("option", { value: label })));
  trouble(model.stale ? "The files of this model are gone or were changed since it was loaded. Its answers are those of the old files." : "");
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

/** Asks another model about the pictures that are here. */
async function choose(name) {
  const mine = ++choices;
  try {
    await look(name);
  } catch (error) {
    if (mine !== choices) return;
    byId("model").value = model.name;
    return trouble(error.message);
  }
  if (mine !== choices) return;
  sending.clear();
  for (const picture of pictures) Object.assign(picture, { row: null, why: null }).card.wait(model, served);
  filter({ kind: "all", label: "" });
  sending.add(pictures);
}

function add(some) {
  const added = some.map(({ file, name }) => ({ file, name: harmless(name), row: null, why: null }));
  for (const picture of added) picture.card = new Card(picture, { again: () => again(picture) });
  for (const picture of added) picture.card.wait(model, served);
  pictures.push(...added);
  byId("pictures").append(...added.map(({ card }) => card.element));
  byId("empty").hidden = true;
  byId("results").hidden = false;
  document.body.classList.add("busy");
  say(`${counted(added.length, "picture")} added.`);
  sending.add(added);
}

function again(picture) {
  Object.assign(picture, { row: null, why: null }).card.wait(model, served);
  sending.add([picture]);
}

function onAnswer(picture, row, answer) {
  if (row.error === undefined) picture.row = row;
  else picture.why = row.error;
  picture.card.show();
  if (answer.version !== model.version) look().catch((error) => trouble(error.message));
}

function onFailure(picture, why) {
  picture.why = why;
  picture.card.show({ canAgain: true });
}

function onMove(waits) {
  const done = pictures.filter(({ row, why }) => row || why).length;
  const isOver = sending.isIdle || pictures.length === 0;
  byId("progress").hidden = isOver;
  byId("done").max = Math.max(1, pictures.length);
  byId("done").value = done;
  byId("stop").textContent = sending.isStopped ? "Go on" : "Stop";
  const what = sending.isStopped ? "Stopped at" : (WAITS[waits] ?? "Answered");
  byId("progress-text").textContent = `${what} ${done} of ${pictures.length}`;
  tally();
  if (isOver && pictures.length > 0) say(summary());
}

const KINDS = {
  all: () => true,
  unsure: ({ row }) => row?.unsure === true,
  unfamiliar: ({ row }) => row?.unfamiliar === true,
  errors: ({ why }) => Boolean(why),
};

/** The names that a picture was given. */
const namesOf = ({ row }) => (!row || row.value !== undefined ? [] : (row.labels ?? [row.label]));

function counts() {
  const found = new Map();
  for (const name of pictures.flatMap(namesOf)) found.set(name, (found.get(name) ?? 0) + 1);
  return [...found].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
}

function summary() {
  const n = Object.fromEntries(Object.entries(KINDS).map(([kind, is]) => [kind, pictures.filter(is).length]));
  const classes = counts().slice(0, 5).map(([name, count]) => `${count} ${name}`);
  const doubts = [n.unsure && `${n.unsure} unsure`, n.unfamiliar && `${n.unfamiliar} unfamiliar`, n.errors && `${n.errors} without an answer`];
  return `${counted(n.all, "picture")} done: ${[...classes, ...doubts.filter(Boolean)].join(", ")}.`;
}

let isDue = false;

/** Counts anew, once for all that happens at a time. */
function tally() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const button of document.querySelectorAll("[data-show]")) {
      const n = pictures.filter(KINDS[button.dataset.show]).length;
      button.querySelector("b").textContent = n;
      button.hidden = n === 0 && button.dataset.show !== shown.kind && button.dataset.show !== "all";
    }
    const select = byId("by-class");
    const labels = counts();
    const options = [make("option", { value: "", text: "Any answer" }), ...labels.map(([name, n]) => make("option", { value: name, text: `${name} (${n})` }))];
    if (document.activeElement !== select) {
      select.replaceChildren(...options);
      select.value = shown.label;
    }
    tell(labels);
    select.parentElement.hidden = labels.length < 2 && !shown.label;
    const matches = (picture) => KINDS[shown.kind](picture) && (!shown.label || namesOf(picture).includes(shown.label));
    let n = 0;
    for (const picture of pictures) n += !(picture.card.element.hidden = !matches(picture));
    byId("none").hidden = n > 0;
  });
}

/** How many pictures were given each name. */
function tell(labels) {
  const line = labels.slice(0, NAMED).map(([name, n]) => make("span", {}, make("b", { text: n }), " ", isolated(name)));
  if (labels.length > NAMED) line.push(make("span", { text: `and ${labels.length - NAMED} more` }));
  byId("counts").replaceChildren(...line);
  byId("counts").hidden = labels.length < 2;
}

function filter(change) {
  shown = { ...shown, ...change };
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button.dataset.show === shown.kind);
  tally();
}

function watch() {
  for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => filter({ kind: button.dataset.show }));
  byId("by-class").addEventListener("change", ({ target }) => filter({ label: target.value }));
  byId("stop").addEventListener("click", () => (sending.isStopped ? sending.goOn() : sending.stop()));
  byId("heat").addEventListener("click", ({ target }) => {
    const isOn = byId("pictures").classList.toggle("looking");
    target.setAttribute("aria-pressed", isOn);
    for (const { card } of pictures) card.lookIfSeen();
  });
  byId("save").addEventListener("click", save);
  byId("clear").addEventListener("click", clear);
}

function save() {
  const done = pictures.filter(({ row, why }) => row || why);
  const url = URL.createObjectURL(new Blob([asCsv(done, model)], { type: "text/csv;charset=utf-8" }));
  make("a", { href: url, download: `${model.name.replace(/[^\w.-]+/g, "-")}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  say(`${counted(done.length, "row")} saved.`);
}

function clear() {
  sending.clear();
  for (const { card } of pictures) card.remove();
  pictures = [];
  filter({ kind: "all", label: "" });
  notice("");
  byId("results").hidden = true;
  byId("empty").hidden = false;
  document.body.classList.remove("busy");
  byId("pick").focus();
  say("All pictures are cleared.");
}

begin();
