// Small pictures of large files, made when a card comes near to what is seen, so that hundreds of photos do not fill the memory.

const SIDE = 640; // pixels of the longer side: a card's width on a fine screen
const AS_IT_IS_BYTES = 200_000; // a JPEG so small is shown itself; others may move, or be transparent, which the network does not see
const LANES = 2;

const waiting = [];
let busy = 0;

/** {url, aspect} of a picture, null for one that this browser cannot show. */
export function preview(file) {
  return new Promise((resolve) => {
    waiting.push(async () => resolve(await made(file)));
    next();
  });
}

async function next() {
  if (busy >= LANES || waiting.length === 0) return;
  busy += 1;
  await waiting.shift()();
  busy -= 1;
  next();
}

async function made(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright: EXIF is applied
  } catch {
    return null;
  }
  const { width, height } = bitmap;
  try {
    const isSmall = file.type === "image/jpeg" && file.size <= AS_IT_IS_BYTES && Math.max(width, height) <= 2 * SIDE;
    if (isSmall) return { url: URL.createObjectURL(file), aspect: width / height };
    const scale = Math.min(1, SIDE / Math.max(width, height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // as the network sees what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
    return blob && { url: URL.createObjectURL(blob), aspect: width / height };
  } finally {
    bitmap.close();
  }
}
