"use strict";
// What the page does beyond being read: cells in dialogs, activation maps by hand, a map to wander in. Needs no other file.
document.documentElement.classList.add("js");

const opened = (id) => {
  const dialog = document.getElementById(id);
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-open]");
  if (link) { event.preventDefault(); opened(link.dataset.open); return; }
  const dialog = event.target.closest("dialog");
  if (dialog && dialog.open && (event.target === dialog || event.target.closest(".close"))) { event.preventDefault(); dialog.close(); }
});
if (location.hash.startsWith("#cell-")) opened(location.hash.slice(1));

for (const button of document.querySelectorAll(".toggle")) {
  button.addEventListener("click", () => {
    const on = button.closest(".looks").classList.toggle("on");
    button.setAttribute("aria-pressed", String(on));
  });
}

let closedBefore = [];
addEventListener("beforeprint", () => {
  closedBefore = [...document.querySelectorAll("details:not([open])")];
  for (const details of closedBefore) details.open = true;
});
addEventListener("afterprint", () => { for (const details of closedBefore) details.open = false; });

const command = document.getElementById("command");
if (command && navigator.clipboard) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy the command" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
  });
  command.closest("dd").append(button);
}

const mapped = document.getElementById("map-data");
if (mapped) wander(JSON.parse(mapped.textContent));

function wander(points) {
  const svg = document.getElementById("map-svg"), told = document.getElementById("map-told");
  const select = document.getElementById("map-group");
  const whole = svg.viewBox.baseVal, all = [whole.x, whole.y, whole.width, whole.height];
  const uses = [...svg.querySelectorAll("[data-p]")];
  const markers = [...svg.querySelectorAll("defs path")].filter((path) => uses.some((use) => use.getAttribute("href") === `#${path.id}`));
  const spots = uses.map((use) => [Number(use.getAttribute("x")), Number(use.getAttribute("y")), Number(use.dataset.p), use]);
  let view = [...all], lit = null;
  document.querySelector(".controls").hidden = told.hidden = false;

  const show = () => {
    svg.setAttribute("viewBox", view.join(" "));
    svg.style.touchAction = view[2] < all[2] ? "none" : "pan-y"; // a finger moves the page past a map that is whole
    const scale = Math.max(view[2] / all[2], 0.12) ** 0.75; // markers grow less than the map does
    for (const marker of markers) marker.setAttribute("transform", `scale(${scale})`);
  };
  const zoom = (factor, x, y) => {
    const width = Math.min(all[2], Math.max(all[2] / 40, view[2] / factor)), by = width / view[2];
    view = [x - (x - view[0]) * by, y - (y - view[1]) * by, width, view[3] * by];
    hold();
  };
  const hold = () => {
    view[0] = Math.min(Math.max(view[0], all[0] - view[2] / 2), all[0] + all[2] - view[2] / 2);
    view[1] = Math.min(Math.max(view[1], all[1] - view[3] / 2), all[1] + all[3] - view[3] / 2);
    show();
  };
  const place = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [at.x, at.y];
  };
  const isShown = (p) => select.value === "" || (select.value === "wrong" ? points[p][5] === 1 : points[p][4] === Number(select.value));
  const nearest = (x, y) => {
    const reach = 14 * view[2] / svg.clientWidth;
    let best = null, least = reach * reach;
    for (const [sx, sy, p, use] of spots) {
      const far = (sx - x) ** 2 + (sy - y) ** 2;
      if (far < least && isShown(p)) { least = far; best = [p, use]; }
    }
    return best;
  };
  const line = (text, name = "") => {
    const p = document.createElement("p"), inner = document.createElement("bdi");
    inner.textContent = text;
    p.className = name;
    p.append(inner);
    return p;
  };
  const tell = (found) => {
    if (!found || lit === found[1]) return;
    if (lit) lit.classList.remove("at");
    lit = found[1];
    lit.classList.add("at");
    const [picture, file, label, says] = points[found[0]];
    const parts = [line(label), line(says, "note"), line(file, "file")];
    if (picture) {
      const shown = document.createElement("span");
      shown.className = `pic ${picture}`;
      shown.setAttribute("role", "img");
      shown.setAttribute("aria-label", file);
      parts.unshift(shown);
    } else parts.push(line("Its picture is not in this file.", "note"));
    told.replaceChildren(...parts);
  };

  const fingers = new Map();
  let moved = 0;
  svg.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, event); moved = 0; svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { tell(nearest(...place(event))); return; }
    const [x, y] = place(event), [bx, by] = place(before);
    moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
    if (fingers.size === 1) { view[0] -= x - bx; view[1] -= y - by; hold(); }
    const other = [...fingers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const [ox, oy] = place(other), gap = Math.hypot(bx - ox, by - oy);
      if (gap > 0) zoom(Math.hypot(x - ox, y - oy) / gap, ox, oy);
    }
    fingers.set(event.pointerId, event);
  });
  const lift = (event) => {
    fingers.delete(event.pointerId);
    if (event.type === "pointerup" && moved < 8) tell(nearest(...place(event)));
  };
  for (const kind of ["pointerup", "pointercancel"]) svg.addEventListener(kind, lift);
  svg.addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...place(event)); }, { passive: false });
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      if (factor) zoom(factor, view[0] + view[2] / 2, view[1] + view[3] / 2);
      else { view = [...all]; show(); }
    });
  }
  select.addEventListener("change", () => { for (const [, , p, use] of spots) use.classList.toggle("away", !isShown(p)); });
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) { event.preventDefault(); view[0] += step[0] * view[2] / 8; view[1] += step[1] * view[3] / 8; hold(); tell(nearest(view[0] + view[2] / 2, view[1] + view[3] / 2)); }
    else if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.3 : 1 / 1.3, view[0] + view[2] / 2, view[1] + view[3] / 2);
  });
}
