// What is asked of the service, and what it refuses. Addresses are relative: it may stand behind another one's path.

export const UNREADABLE = -1; // the status of a request that was never sent, since the browser cannot read a file of it

/** A request that was not answered. status: of HTTP, 0 where nothing came back, or something else, or UNREADABLE. wait_s: after which to
 * come again, if said. */
export class Refused extends Error {
  constructor(status, said, waitS = null) {
    super(said);
    this.status = status;
    this.waitS = waitS;
  }
}

/** What is served: {models, feedback, limits}. */
export const described = () => called("v1/model");

/** A row for each file, in order. settings: model, top, explain, nearest. Also where no file can be read. */
export async function answered(files, settings, signal) {
  const form = new FormData();
  files.forEach((file, i) => form.append("images", file, `picture-${i}`)); // its name stays here
  return called(`v1/predict?${new URLSearchParams(settings)}`, { method: "POST", body: form, signal }, files);
}

/** Keeps a picture with the label it should have had: {path, label, digest}. */
export const kept = (file, model, label) =>
  called(
    `v1/feedback?${new URLSearchParams({ model, label })}`,
    { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } },
    [file],
  );

/** Forgets it again. */
export const forgotten = (digest, model) =>
  called(`v1/feedback/${digest}?${new URLSearchParams({ model })}`, { method: "DELETE" });

/** files: that the request holds. A browser says of one that it cannot read no more than of a service that is away. */
async function called(address, options = {}, files = []) {
  let response;
  try {
    response = await fetch(address, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const areThere = await Promise.all(files.map(isThere));
    if (areThere.includes(false)) throw new Refused(UNREADABLE, "It can no longer be read: it was moved or changed since it was chosen. Choose it again.");
    throw new Refused(0, "The service cannot be reached. Is it still running?");
  }
  if (response.status === 204) return null;
  const body = await response.json().catch(() => null);
  if (response.ok && body === null) throw new Refused(0, "What answered is not this service, or its answer broke off.");
  if (response.ok || (response.status === 422 && body?.results)) return body;
  const said = body?.error ?? { what: `The service answered with status ${response.status}.` };
  const fix = response.status === 401 ? "Load this page again, and give the token as the password." : said.fix;
  const wait = Number(response.headers.get("Retry-After"));
  throw new Refused(response.status, [said.what, said.why, fix].filter(Boolean).join(" "), wait > 0 ? wait : null);
}

const isThere = (file) =>
  file.slice(0, 1).arrayBuffer().then(
    () => true,
    () => false,
  );
