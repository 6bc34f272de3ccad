// Elements are made here and nowhere else: all that comes from a file or a model is text, never markup.

/** An element. of: text, class, and attributes; what is null, undefined or false is left out. */
export function make(tag, of = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(of)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A name whose writing direction does not turn what stands around it. */
export const isolated = (text) => make("bdi", { text });

/** A file's name in which signs that turn what follows, unseen (photo\u202Egnp.exe), are written out. */
export const harmless = (name) => name.replace(/[\u202a-\u202e\u2066-\u2069]/g, (sign) => `\\u${sign.charCodeAt(0).toString(16).toUpperCase()}`);

/** "1 picture", "3 pictures", "2 classes". */
export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

/** A probability as people read it; what is not quite 0 or 1 does not look as if it were. */
export function percent(share) {
  if (share > 0.9995 && share < 1) return "> 99.9 %";
  if (share < 0.0005 && share > 0) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

const board = byId("notice");

/** Shown above the pictures and read out at once, until something else is; "" takes it away. */
export function notice(text) {
  board.textContent = text;
  board.hidden = !text;
}

const speaker = byId("said");

/** Said to screen readers when they are at rest. */
export function say(text) {
  speaker.textContent = text;
}
