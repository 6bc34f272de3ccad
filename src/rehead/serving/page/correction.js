// "Wrong? It is a ...": the picture and the label it should have had are kept by the service, for the next tuning. It can be
// taken back, and corrected again.

import { namedText } from "./answer.js";
import { counted, isolated, make, say } from "./dom.js";
import { forgotten, kept } from "./service.js";

let n = 0; // for ids

export class Correction {
  #kept = null; // {label, digest}

  constructor(picture, model) {
    Object.assign(this, { picture, model, id: `correct-${++n}` });
    this.button = make("button", { type: "button", class: "link", text: "Wrong?", "aria-expanded": "false", "aria-controls": this.id, on: { click: () => this.#toggle() } });
    this.place = make("div", { id: this.id });
  }

  #toggle() {
    if (this.place.querySelector("form")) return this.#close();
    const { form, first } = this.#form();
    this.place.replaceChildren(form);
    this.button.setAttribute("aria-expanded", "true");
    first.focus();
  }

  #close() {
    this.#tell();
    this.button.focus();
  }

  /** What is kept, or nothing. */
  #tell() {
    this.button.setAttribute("aria-expanded", "false");
    this.button.textContent = this.#kept ? "Change" : "Wrong?";
    if (!this.#kept) return this.place.replaceChildren();
    const undo = make("button", { type: "button", class: "link", text: "Undo", on: { click: () => this.#undo(undo) } });
    const said = this.#kept.label === "" ? ["Kept as none of the labels."] : ["Kept as ", isolated(this.#kept.label.split(";").join(", ")), "."];
    this.place.replaceChildren(make("div", { class: "foot" }, make("span", { class: "kept" }, ...said), undo));
  }

  #form() {
    const { field, read, first } = FIELDS[this.model.task](this.model, this.picture.row, this.#kept?.label, this.id);
    const told = make("p", { class: "note", role: "status" });
    const save = make("button", { type: "submit", class: "main", text: "Keep it" });
    const cancel = make("button", { type: "button", text: "Cancel", on: { click: () => this.#close() } });
    const form = make("form", { class: "correct", novalidate: true }, field, told, make("div", { class: "ways" }, save, cancel));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#close();
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { label, why } = read();
      if (why) return fail(why);
      save.disabled = true;
      try {
        this.#kept = await kept(this.picture.file, this.model.name, label);
        this.#close();
        say(`${this.picture.name} is kept as ${this.#kept.label || "none of the labels"}.`);
      } catch (error) {
        save.disabled = false;
        fail(error.message);
      }
    });
    const fail = (why) => {
      told.textContent = why;
      told.className = "note faulty";
      first.focus();
    };
    return { form, first };
  }

  async #undo(button) {
    button.disabled = true;
    try {
      await forgotten(this.#kept.digest, this.model.name);
      this.#kept = null;
      this.#close();
      say(`${this.picture.name} is not kept any more.`);
    } catch (error) {
      button.disabled = false;
      say(error.message);
      this.place.append(make("p", { class: "note faulty", text: error.message }));
    }
  }
}

/** By task: the field of a correction, what is read from it, and where to begin. */
const FIELDS = {
  classification(model, row, last, id) {
    const input = make("input", { type: "text", list: "classes", autocomplete: "off", autocapitalize: "none", spellcheck: "false", value: last ?? "", "aria-describedby": `${id}-hint` });
    const hint = make("p", { class: "note", id: `${id}-hint`, text: `One of its ${counted(model.classes.length, "class")}, or another name.` });
    input.addEventListener("input", () => {
      const text = input.value.trim();
      const isNew = text && !model.classes.some((name) => name.toLowerCase() === text.toLowerCase());
      hint.textContent = isNew ? "A new class: the model learns it when it is tuned on what was kept." : `One of its ${counted(model.classes.length, "class")}, or another name.`;
    });
    const read = () => {
      const label = input.value.trim();
      if (!label) return { why: "Say what it is." };
      if (label === row.label) return { why: `That is what the model says already: ${namedText(row)}.` };
      return { label };
    };
    return { field: make("div", {}, make("label", { class: "what" }, "It is a …", input), hint), read, first: input };
  },
  multilabel(model, row, last, id) {
    const on = new Set(last === undefined ? row.labels : last.split(";"));
    const known = model.classes.map((name) => ({ name, box: make("input", { type: "checkbox", checked: on.has(name) }) }));
    const fresh = (last ?? "").split(";").filter((name) => !model.classes.includes(name));
    const other = make("input", { type: "text", autocomplete: "off", id: `${id}-other`, value: fresh.join(";") });
    const boxes = known.map(({ name, box }) => make("label", {}, box, isolated(name)));
    const field = make("div", {}, make("fieldset", {}, make("legend", { text: "It shows …" }), ...boxes), make("label", { class: "what" }, "and also", other));
    const read = () => ({ label: [...known.filter(({ box }) => box.checked).map(({ name }) => name), other.value.trim()].filter(Boolean).join(";") });
    return { field, read, first: known[0]?.box ?? other };
  },
  regression(_model, _row, last) {
    const input = make("input", { type: "number", step: "any", inputmode: "decimal", value: last ?? "" });
    const read = () => (input.value === "" ? { why: "Say which number it should be." } : { label: input.value });
    return { field: make("label", { class: "what" }, "It should be …", input), read, first: input };
  },
};
