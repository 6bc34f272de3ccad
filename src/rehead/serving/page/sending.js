// Pictures on their way: in small groups, a few requests at once. A busy service is waited for; a request that fails whole is
// halved until the picture that it fails on is alone. It can be stopped, and goes on where it was.

import { answered, UNREADABLE } from "./service.js";

const GROUP = 8; // pictures a request: as many as the network takes at once
const GROUP_BYTES = 16e6; // a request is on its way for seconds, not for minutes
const LANES = 3; // requests at once: one is answered while others are on their way
export const TRIES = 4; // of a service that cannot be reached, after 1, 2 and 4 seconds
const HALVED = [UNREADABLE, 400, 408, 413, 422, 504];

export class Sending {
  #waiting = [];
  #lanes = 0;
  #stop = null; // aborted while it is stopped
  #lot = 0; // which grows when all is cleared: what was under way then is dropped

  /** settings(): of a request. limits(): of the service. told: {began, answered(picture, row, answer), failed(picture, why),
   * moved(waits)}, where moved follows each change, and waits is "busy" or "away" while the service is waited for, else "". */
  constructor(settings, limits, told) {
    Object.assign(this, { settings, limits, told });
  }

  get isStopped() {
    return this.#stop?.signal.aborted ?? false;
  }

  get isIdle() {
    return this.#lanes === 0 && this.#waiting.length === 0;
  }

  add(pictures) {
    this.#waiting.push(...pictures);
    this.#run();
  }

  stop() {
    this.#stop?.abort();
    this.told.moved("");
  }

  goOn() {
    this.#stop = null;
    this.#run();
  }

  /** Nothing waits any more, and what is under way is dropped. */
  clear() {
    this.#stop?.abort();
    this.#waiting = [];
    this.#stop = null;
    this.#lot += 1;
  }

  #run() {
    if (this.isStopped) return this.told.moved("");
    this.#stop ??= new AbortController();
    while (this.#lanes < LANES && this.#waiting.length > 0) this.#lane(this.#stop.signal);
    this.told.moved("");
  }

  async #lane(signal) {
    this.#lanes += 1;
    while (!signal.aborted && this.#waiting.length > 0) await this.#send(this.#group(), signal);
    this.#lanes -= 1;
    this.#run(); // it may have been gone on with meanwhile
  }

  #group() {
    const group = [];
    let bytes = 0;
    while (this.#waiting.length > 0 && group.length < Math.min(GROUP, this.limits().images)) {
      bytes += this.#waiting[0].file.size;
      if (group.length > 0 && bytes > GROUP_BYTES) break;
      group.push(this.#waiting.shift());
    }
    return group;
  }

  async #send(group, signal) {
    const most = this.limits().body_bytes - 10_000; // what a form adds
    const small = group.filter((picture) => picture.file.size <= most);
    for (const picture of group) if (!small.includes(picture)) this.told.failed(picture, `larger than the ${Math.floor(this.limits().body_bytes / 2 ** 20)} MiB that a request may have`);
    if (small.length > 0) await this.#asked(small, signal);
  }

  /** lot: that the group is of, which a half of it stays in when all is cleared. */
  async #asked(group, signal, lot = this.#lot) {
    const back = () => {
      if (lot === this.#lot) this.#waiting.unshift(...group);
    };
    let tries = 0;
    for (;;) {
      try {
        const files = group.map((picture) => picture.file);
        const answer = await answered(files, this.settings(), signal);
        if (signal.aborted) return back();
        answer.results.forEach((row, i) => this.told.answered(group[i], row, answer));
        return this.told.moved("");
      } catch (error) {
        if (signal.aborted) return back();
        if (error.status === 503) await this.#rest("busy", error.waitS ?? 1, signal);
        else if (error.status === 0 && ++tries < TRIES) await this.#rest("away", 2 ** (tries - 1), signal);
        else if (HALVED.includes(error.status) && group.length > 1) {
          const half = Math.ceil(group.length / 2);
          await this.#asked(group.slice(0, half), signal, lot);
          return this.#asked(group.slice(half), signal, lot);
        } else {
          for (const picture of group) this.told.failed(picture, error.message);
          return this.told.moved("");
        }
      }
    }
  }

  #rest(why, seconds, signal) {
    this.told.moved(why);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000 * seconds);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }
}
