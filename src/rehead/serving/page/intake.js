// The ways in for pictures: dropped (folders too), pasted, chosen, or taken by a phone's camera. What they hold is not judged here.

import { byId, notice } from "./dom.js";

const LEFTOVERS = new Set(["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"]);
const MOST = 5_000; // pictures at once: more than that is a job for `rehead predict`

/** add([{file, name}]) is called with what came, in the order of their names. */
export function listen(add) {
  const give = (pictures) => {
    if (pictures.length === 0) return notice("There is no file in it that can be read.");
    add(pictures.slice(0, MOST));
    const n = MOST.toLocaleString("en");
    notice(pictures.length > MOST ? `These are more than ${n} files: ${n} of them are taken. For more there is rehead predict.` : "");
  };
  const chosen = (input, button) => {
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      give(sorted([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })).filter(isWanted)));
      input.value = ""; // the same can be chosen again
    });
  };
  chosen(byId("files"), byId("pick"));
  chosen(byId("folder"), byId("pick-folder"));
  byId("phone").addEventListener("change", ({ target }) => {
    give([...target.files].map((file) => ({ file, name: file.name })));
    target.value = "";
  });
  byId("pick-folder").hidden = !("webkitdirectory" in byId("folder")) || matchMedia("(pointer: coarse)").matches;
  dropped(give);
  pasted(give);
}

function dropped(give) {
  let depth = 0;
  const over = (is) => document.body.classList.toggle("over", is);
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => {
    if (hasFiles(event)) over(++depth > 0);
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event)) over(--depth > 0);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    if (event.target.closest?.("input[type=text]") && !hasFiles(event)) return;
    event.preventDefault(); // else the browser leaves this page and opens the file
    depth = 0;
    over(false);
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    if (items.length === 0) return notice("That is no file. Save the picture first, then drop it.");
    const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()); // now: they are gone a moment later
    const found = [];
    for (const entry of entries) if (entry) await gather(entry, found);
    give(sorted(found));
  });
}

async function gather(entry, found) {
  if (entry instanceof File) return found.push({ file: entry, name: entry.name });
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    const name = entry.fullPath.replace(/^\//, "");
    if (file && isWanted({ name })) found.push({ file, name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (some.length === 0) return;
    for (const one of some) if (found.length <= MOST) await gather(one, found);
  }
}

function pasted(give) {
  let n = 0;
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return; // text into a field
    // spreadsheets give what was copied as a picture too
    if (event.target.closest?.("input, textarea") && event.clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    give(files.map((file) => ({ file, name: file.name === "image.png" ? `pasted ${++n}.png` : file.name })));
  });
}

/** Files of a folder that people never see are left out. */
function isWanted({ name }) {
  const parts = name.split("/");
  return parts.length === 1 || !parts.some((part) => part.startsWith(".") || LEFTOVERS.has(part.toLowerCase()));
}

const sorted = (pictures) => pictures.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
