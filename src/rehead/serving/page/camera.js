// Photographing: a phone has an app for it, elsewhere the camera is shown live until it is closed.

import { byId, counted, say } from "./dom.js";

const WANTED = { width: { ideal: 1920 }, height: { ideal: 1440 } };
const WHY = {
  NotAllowedError: "The camera may not be used here. Allow it in the browser's settings for this page.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

let stream = null;
let starts = 0; // and ends: what was opened for an earlier one is stopped
let devices = [];
let taken = 0;

/** add([{file, name}]) is called with each photo. */
export function listen(add) {
  const dialog = byId("camera");
  byId("shoot").addEventListener("click", () => {
    const live = navigator.mediaDevices?.getUserMedia && !matchMedia("(pointer: coarse)").matches;
    if (!live) return byId("phone").click();
    dialog.showModal();
    start({ facingMode: "environment" });
  });
  byId("shutter").addEventListener("click", () => shoot(add));
  byId("turn").addEventListener("click", () => {
    const now = stream?.getVideoTracks()[0]?.getSettings().deviceId;
    const next = (devices.findIndex((device) => device.deviceId === now) + 1) % devices.length;
    start({ deviceId: { exact: devices[next].deviceId } });
  });
  byId("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop); // also by Escape
}

async function start(which) {
  stop();
  const mine = starts;
  tell("Waiting for the camera …");
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { ...WANTED, ...which }, audio: false });
    if (mine !== starts) return halt(opened);
    stream = opened;
    const view = byId("view");
    view.srcObject = opened;
    await view.play();
    devices = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
    if (mine !== starts) return;
    byId("turn").hidden = devices.length < 2;
    byId("shutter").disabled = false;
    byId("shutter").focus();
    tell("");
  } catch (error) {
    if (mine === starts) tell(WHY[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

function stop() {
  starts += 1;
  halt(stream);
  stream = null;
  byId("view").srcObject = null;
  byId("shutter").disabled = true;
}

const halt = (some) => some?.getTracks().forEach((track) => track.stop());

function shoot(add) {
  const view = byId("view");
  const canvas = document.createElement("canvas");
  canvas.width = view.videoWidth;
  canvas.height = view.videoHeight;
  canvas.getContext("2d").drawImage(view, 0, 0);
  canvas.toBlob(
    (blob) => {
      taken += 1;
      const name = `photo ${taken}.jpg`;
      add([{ file: new File([blob], name, { type: "image/jpeg" }), name }]);
      tell(`${counted(taken, "photo")} taken.`);
    },
    "image/jpeg",
    0.92,
  );
}

function tell(text) {
  byId("camera-said").textContent = text;
  if (text) say(text);
}
