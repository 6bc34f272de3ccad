// The answers as a table: the columns of `rehead predict --format csv`, made here, so that nothing is sent again.

import { namedText, ranked } from "./answer.js";

const TOP = 3; // as many classes as rehead predict lists when it is not told

/** pictures: those with an answer or an error, in order. model: {task, classes}. Answers may be of the one that it took the place of:
 * they are written as far as there are columns for them. */
export function asCsv(pictures, model) {
  const { head, cells } = COLUMNS[model.task](model);
  const rows = [["path", ...head, "doubts", "error"]];
  for (const { name, row, why } of pictures) {
    const found = why ? [] : cells(row);
    rows.push([name, ...head.map((_, i) => found[i] ?? ""), why ? "" : doubts(row), why ?? ""]);
  }
  return "\ufeff" + rows.map((row) => row.map(cell).join(",")).join("\n") + "\n"; // marked as UTF-8, for Excel
}

const COLUMNS = {
  classification({ classes }) {
    const n = Math.min(TOP, classes.length);
    const head = Array.from({ length: n }, (_, i) => [`label${i + 1}`, `probability${i + 1}`]).flat();
    const each = (row) => ranked(row).flatMap(({ label, probability }) => [label, probability.toFixed(6)]);
    return { head, cells: (row) => (row.value === undefined ? each(row) : [namedText(row)]) };
  },
  multilabel() {
    const each = (row) => ranked(row).map(({ label, probability }) => `${label}=${probability.toFixed(6)}`).join(";");
    return { head: ["labels", "probabilities"], cells: (row) => [row.labels?.join(";") ?? namedText(row), each(row)] };
  },
  regression() {
    return { head: ["value"], cells: (row) => [namedText(row)] };
  },
};

const doubts = (row) => ["unsure", "unfamiliar"].filter((name) => row[name]).join(", ");

/** A cell, quoted where it has to be. Text that a spreadsheet would take for a formula gets an apostrophe; numbers do not. */
function cell(value) {
  const text = /^[=+\-@\t\r]/.test(value) && !/^-?[\d.]+(e[+-]?\d+)?$/i.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
