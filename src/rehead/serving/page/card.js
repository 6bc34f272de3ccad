// One picture and what is said of it. What is costly, its small picture and the map of where the model looks, is made when it is
// wanted: when the card comes near, or is pointed at.

import { bars, doubts, MANY, named, nMore } from "./answer.js";
import { Correction } from "./correction.js";
import { isolated, make, say } from "./dom.js";
import { preview } from "./preview.js";
import { answered } from "./service.js";

const POINTED_MS = 120; // a pointer that only passes wants nothing
const NEAR = "700px";

const cards = new WeakMap();
const near = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => cards.get(target)?.near(isIntersecting)), { rootMargin: NEAR });

export class Card {
  #url = null;
  #hasPreview = false;
  #isNear = false;
  #isSafe = false;
  #heat = "none"; // none, asked or there
  #isWhole = false;
  #correction = null;

  /** told: {again()}. */
  constructor(picture, told) {
    Object.assign(this, { picture, told });
    this.frame = make("span", { class: "frame" });
    this.heard = make("span", { class: "told" });
    this.nothing = make("span", { class: "none", text: "no picture", hidden: true });
    this.body = make("div", { class: "said" });
    this.element = make("li", { class: "card" });
    cards.set(this.element, this);
    near.observe(this.element);
  }

  /** Shows that an answer is awaited. model: which is asked; served: what the service offers. */
  wait(model, served) {
    Object.assign(this, { model, served });
    this.#heat = "none";
    this.#isWhole = false;
    this.#correction = null;
    this.frame.querySelector(".warmth")?.remove();
    this.heard.textContent = "";
    this.nothing.hidden = true;
    this.element.className = "card waiting";
    this.element.setAttribute("aria-busy", "true");
    this.#frame(false);
    this.body.replaceChildren(this.#file(), make("p", { class: "answer", text: "waiting …" }));
  }

  /** Shows the answer, or why there is none. canAgain: whether it may help to ask again. */
  show({ canAgain = false } = {}) {
    const { row, why } = this.picture;
    this.element.removeAttribute("aria-busy");
    this.element.className = why ? "card bad" : "card";
    this.#show(!why || canAgain);
    this.nothing.hidden = !why || canAgain;
    if (why) {
      const again = make("button", { type: "button", class: "link", text: "Try again", on: { click: () => this.told.again() } });
      this.body.replaceChildren(this.#file(), make("p", { class: "answer", text: sentence(why) }));
      if (canAgain) this.body.append(make("div", { class: "foot" }, again));
      return;
    }
    this.#frame(this.model.explains);
    this.#say(row);
    this.lookIfSeen();
  }

  /** The map is fetched where the card is near to what is seen and maps are shown. */
  lookIfSeen() {
    if (this.#isNear && this.element.parentElement?.classList.contains("looking")) this.#look();
  }

  near(is) {
    this.#isNear = is;
    if (is) this.#show(this.#isSafe);
    this.lookIfSeen();
  }

  remove() {
    near.unobserve(this.element);
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.element.remove();
  }

  #file() {
    const { name } = this.picture;
    return make("p", { class: "file", title: name }, isolated(name));
  }

  #say(row) {
    const whole = bars(row, this.model, this.#isWhole);
    const foot = make("div", { class: "foot" });
    const n = nMore(row, this.model);
    if (n > 0) foot.append(this.#more(row, n));
    if (this.served.feedback) this.#correction ??= new Correction(this.picture, this.model);
    if (this.#correction) foot.append(this.#correction.button);
    this.body.replaceChildren(
      ...[this.#file(), make("p", { class: "answer" }, named(row)), doubts(row, this.model), whole, this.#like(row), foot, this.#correction?.place ?? null].filter(Boolean),
    );
  }

  #more(row, n) {
    const button = make("button", { type: "button", class: "link", "aria-expanded": String(this.#isWhole), text: this.#isWhole ? "Fewer" : `${n} more` });
    button.addEventListener("click", async () => {
      const top = Math.min(MANY, this.model.classes.length);
      if (row.top && row.top.length < top) {
        button.disabled = true;
        let found;
        try {
          [found] = (await answered([this.picture.file], { model: this.model.name, top })).results;
        } catch (error) {
          found = { error: error.message };
        }
        if (row !== this.picture.row) return; // another model was chosen meanwhile
        if (found.top) row.top = found.top;
        else say(found.error); // those that are there are shown
      }
      this.#isWhole = !this.#isWhole;
      this.#say(row);
      this.body.querySelector(".foot button")?.focus();
    });
    return button;
  }

  #like(row) {
    if (!row.nearest?.length) return null;
    const tile = ({ label, similarity, image }) => {
      const told = `${label}, similarity ${similarity.toFixed(2)}`;
      return make("li", { title: told }, make("img", { src: image.replace(/^\//, ""), alt: "", loading: "lazy" }), make("span", {}, isolated(label)));
    };
    return make("div", { class: "like" }, make("p", { text: "Photos it learned from, most like this one" }), make("ul", {}, ...row.nearest.map(tile)));
  }

  /** The place of the picture; a button where the model can say where it looks. */
  #frame(isButton) {
    if (this.look?.matches("button") === isButton && this.look) return;
    const look = make(isButton ? "button" : "div", { class: "look", ...(isButton ? { type: "button", "aria-pressed": "false", "aria-label": `Where the model looks in ${this.picture.name}` } : {}) }, this.frame, this.heard, this.nothing);
    if (isButton) {
      let timer;
      look.addEventListener("pointerenter", () => (timer = setTimeout(() => this.#look(), POINTED_MS)));
      look.addEventListener("pointerleave", () => clearTimeout(timer));
      look.addEventListener("focus", () => this.#look());
      look.addEventListener("click", () => {
        look.setAttribute("aria-pressed", look.getAttribute("aria-pressed") === "false");
        this.#look();
      });
    }
    this.look?.remove();
    this.look = look;
    this.element.replaceChildren(look, this.body);
  }

  /** The picture itself, once it is near. isSafe: the service could read it, so it is none that fills a browser's memory. */
  async #show(isSafe) {
    this.#isSafe ||= isSafe;
    if (!this.#isNear || !this.#isSafe || this.#hasPreview) return;
    this.#hasPreview = true;
    const made = await preview(this.picture.file);
    if (!made) return this.frame.append(make("span", { class: "none", text: "This browser cannot show it." }));
    this.#url = made.url;
    const { style } = this.frame;
    style.width = `${100 * Math.min(1, made.aspect / (4 / 3))}%`;
    style.height = `${100 * Math.min(1, 4 / 3 / made.aspect)}%`;
    this.frame.prepend(make("img", { class: "photo", src: made.url, alt: this.picture.name }));
  }

  async #look() {
    if (this.#heat !== "none" || !this.picture.row) return;
    this.#heat = "asked";
    const { row } = this.picture;
    this.heard.textContent = "Looking …";
    try {
      const answer = await answered([this.picture.file], { model: this.model.name, top: 1, explain: true });
      if (row !== this.picture.row) return; // another model was chosen meanwhile
      this.#warm(answer.results[0].heat ?? { error: answer.results[0].error });
    } catch (error) {
      this.#heat = "none"; // it may be asked again
      this.heard.textContent = error.message;
    }
  }

  #warm({ label, image, box, error }) {
    this.#heat = "there";
    if (error) {
      this.heard.textContent = sentence(error);
      return;
    }
    const warmth = make("img", { class: "warmth", src: image, alt: "" });
    const [left, top, right, bottom] = box.map((share) => 100 * share);
    Object.assign(warmth.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    this.frame.append(warmth);
    this.heard.replaceChildren("What speaks for ", isolated(label));
  }
}

const sentence = (why) => `${why[0].toUpperCase()}${why.slice(1)}${/[.!?]$/.test(why) ? "" : "."}`;
