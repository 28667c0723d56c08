// SPDX-License-Identifier: Apache-2.0

// The bytes of models, between the network and this browser: fetched by ranges, held to the hashes in the bundle's manifest, kept in the origin
// private file system (OPFS), else in the Cache API, else nowhere. And small files of the user's own.
//
// A model's file in OPFS is laid out as the bundle itself. Nothing says which parts of it are there: every chunk is hashed whenever it is read, and
// what is missing, cut short or damaged is fetched again. So an interrupted download goes on, and a damaged one heals.

const HEADER = 64; // bytes of a bundle's header
const MAX_MANIFEST = 16 << 20;
const SEGMENT = 8 << 20; // bytes that are fetched, read and kept at once, unless a single chunk has more
const AHEAD = 3; // segments on their way at the same time
const TRIES = 4; // of one request

/** An error with a code of FromageError. */
export function failure(code, message) {
  return Object.assign(new Error(message), {code});
}

/** @param {Uint8Array} bytes */
async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, b => b.toString(16).padStart(2, "0")).join("");
}

const megabytes = n => `${Math.ceil(n / 1e6)} MB`;

// folder opens a folder of the origin private file system, or returns null where there is none.
async function folder(name) {
  try {
    let dir = await navigator.storage.getDirectory();
    for (const part of ["fromage", name]) {
      dir = await dir.getDirectoryHandle(part, {create: true});
    }
    return dir;
  } catch {
    return null; // a private window, or a browser without
  }
}

/** Small files of this origin: what the user added. They resolve to null or false where nothing can be kept. */
export const files = {
  async read(name) {
    try {
      const handle = await (await folder("own")).getFileHandle(name);
      return new Uint8Array(await (await handle.getFile()).arrayBuffer());
    } catch {
      return null;
    }
  },

  // write replaces a file as a whole, or leaves it as it was.
  async write(name, bytes) {
    const dir = await folder("own");
    if (!dir) {
      return false;
    }
    try {
      const handle = await dir.getFileHandle(name, {create: true});
      const stream = await handle.createWritable();
      await stream.write(bytes);
      await stream.close();
      return true;
    } catch (error) {
      if (error.name === "QuotaExceededError") {
        throw failure("quota", "This browser has no room left for the picture: remove pictures, or clear other sites' data, and add it again.");
      }
      return false;
    }
  },

  async list() {
    const names = [];
    try {
      for await (const name of (await folder("own")).keys()) {
        names.push(name);
      }
    } catch {
      // nothing is kept here
    }
    return names;
  },

  async remove(name) {
    try {
      await (await folder("own")).removeEntry(name);
    } catch {
      // it is gone, which is what was asked for
    }
  },

  // lock resolves, once no other page of this browser has it, to a function that gives it back.
  lock() {
    return new Promise((resolve, reject) => {
      if (!navigator.locks) {
        resolve(() => {});
        return;
      }
      navigator.locks.request("fromage-files", () => new Promise(release => resolve(release))).catch(reject);
    });
  },
};

// Where a model's bytes are kept. read resolves to the bytes from..to, fewer where there are fewer; write keeps the bytes from from on.

class OPFS {
  kind = "opfs";

  static async open(name) {
    const dir = await folder("models");
    if (!dir) {
      return null;
    }
    const keep = new OPFS();
    keep.handle = await dir.getFileHandle(name, {create: true});
    for (let tries = 0; tries < 3 && !keep.access; tries++) {
      try {
        keep.access = await keep.handle.createSyncAccessHandle();
      } catch {
        await new Promise(resolve => setTimeout(resolve, 200)); // a worker that has just ended gives it free soon
      }
    }
    keep.locked = !keep.access; // by another tab that loads the same model: read what is there
    return keep;
  }

  async read(from, to) {
    if (!this.access) {
      return new Uint8Array(await (await this.handle.getFile()).slice(from, to).arrayBuffer());
    }
    const bytes = new Uint8Array(Math.max(0, Math.min(to, this.access.getSize()) - from));
    return bytes.subarray(0, bytes.length && this.access.read(bytes, {at: from}));
  }

  async write(from, bytes) {
    const n = this.access ? this.access.write(bytes, {at: from}) : bytes.length;
    if (n < bytes.length) {
      throw new DOMException("the disk is full", "QuotaExceededError");
    }
  }

  close() {
    this.access?.flush();
    this.access?.close();
    this.access = null;
  }
}

class CacheAPI {
  kind = "cache";

  static async open(name) {
    try {
      const keep = new CacheAPI();
      keep.cache = await caches.open(`fromage-model-${name}`);
      return keep;
    } catch {
      return null;
    }
  }

  async read(from, to) {
    const found = await this.cache.match(`/fromage-model?${from}-${to}`);
    return new Uint8Array(found ? await found.arrayBuffer() : 0);
  }

  async write(from, bytes) {
    await this.cache.put(`/fromage-model?${from}-${from + bytes.length}`, new Response(bytes));
  }

  close() {}
}

class Nothing {
  kind = "memory";
  async read() {
    return new Uint8Array(0);
  }
  async write() {}
  close() {}
}

// range fetches bytes from..to of url into a new Uint8Array, going on where a broken connection ended. The response's total size is told to onsize,
// bytes as they come to onbytes.
async function range(url, from, to, {signal, onsize, onbytes, most = TRIES}) {
  const bytes = new Uint8Array(to - from);
  let have = 0;
  for (let tries = 1; ; tries++) {
    const before = have;
    try {
      const response = await fetch(url, {headers: {Range: `bytes=${from + have}-${to - 1}`}, cache: "no-store", signal}); // or it were kept twice
      if (response.status !== 206) {
        response.body?.cancel();
        throw refused(url, response);
      }
      onsize?.(Number(response.headers.get("Content-Range")?.split("/")[1]));
      const reader = response.body.getReader();
      for (;;) {
        const {done, value} = await reader.read();
        if (done) {
          break;
        }
        bytes.set(value, have); // throws where the server sends more than was asked for
        have += value.length;
        onbytes?.(value.length);
      }
      if (have === bytes.length) {
        return bytes;
      }
    } catch (error) {
      if (signal?.aborted || error.code || error instanceof RangeError) {
        throw error instanceof RangeError ? failure("network", `${url}: the server sent more than was asked for.`) : error;
      }
    }
    tries = have > before ? 1 : tries; // a connection that breaks now and then gets there in the end
    if (tries === most || navigator.onLine === false) {
      throw failure("network", `The connection broke while ${url} was loading. Check it and try again: what has come so far is kept.`);
    }
    await new Promise(resolve => setTimeout(resolve, 250 * 4 ** (tries - 1)));
  }
}

function refused(url, {status}) {
  if (status >= 500 || status === 429) {
    return new Error(`status ${status}`); // worth another try
  }
  if (status === 200) {
    return failure("network", `The server of ${url} cannot send parts of a file (Range requests), which loading a model needs.`);
  }
  return failure(status === 416 ? "model" : "network", `${url}: the server answers with status ${status}. Check the model's address.`);
}

/** A model's bytes, checked. */
export class Store {
  /** What of the bundle is small: its first bytes, its manifest, and its size. */
  header = null;
  manifest = null;
  size = 0;

  /**
   * @param {string} url of a bundle
   * @param {(event: object) => void} tell hears {type: "progress"} and {type: "notice"}
   */
  static async open(url, tell) {
    const store = new Store();
    store.url = new URL(url, self.location.href).href;
    store.tell = tell;
    store.abort = new AbortController();
    await store.readHeader();
    const view = new DataView(store.header.buffer);
    const offset = Number(view.getBigUint64(16, true));
    const length = Number(view.getBigUint64(24, true));
    if (new TextDecoder().decode(store.header.subarray(0, 7)) !== "FROMAGE" || length > MAX_MANIFEST || offset + length !== store.size) {
      throw failure("model", `${store.url} is not a FROMAGe bundle, or is cut short.`);
    }
    const hash = Array.from(store.header.subarray(32, 64), b => b.toString(16).padStart(2, "0")).join("");
    await store.keepAs(hash.slice(0, 32));
    store.manifest = (await store.segment([{offset, size: length, sha256: hash}]))[0];
    return store;
  }

  get kind() {
    return this.keep.kind;
  }

  // readHeader asks the server, which may have another version now; without a connection it takes what was there last time.
  async readHeader() {
    const dir = await folder("headers");
    const name = await sha256(new TextEncoder().encode(this.url));
    let last = null;
    try {
      last = new Uint8Array(await (await (await dir.getFileHandle(name)).getFile()).arrayBuffer());
    } catch {
      // never loaded
    }
    try {
      this.header = await range(this.url, 0, HEADER, {signal: this.abort.signal, onsize: n => (this.size = n), most: last ? 1 : TRIES});
    } catch (error) {
      if (error.code !== "network" || last?.length !== HEADER + 8) {
        throw error;
      }
      this.header = last.slice(0, HEADER);
      this.size = Number(new DataView(last.buffer).getBigUint64(HEADER, true));
      return;
    }
    const record = new Uint8Array(HEADER + 8);
    record.set(this.header);
    new DataView(record.buffer).setBigUint64(HEADER, BigInt(this.size || 0), true);
    if (dir && String(last) !== String(record)) {
      await this.replace(dir, name, last, record);
    }
  }

  // replace notes the header, and drops the model that was there under the same address before.
  async replace(dir, name, last, record) {
    try {
      if (last) {
        const old = Array.from(last.subarray(32, 48), b => b.toString(16).padStart(2, "0")).join("");
        await (await folder("models")).removeEntry(old).catch(() => {});
      }
      const stream = await (await dir.getFileHandle(name, {create: true})).createWritable();
      await stream.write(record);
      await stream.close();
    } catch {
      // the next visit asks the server again
    }
  }

  // keepAs opens the place where the model's bytes are kept, if this browser has one with room.
  async keepAs(name) {
    this.keep = (await OPFS.open(name)) ?? (await CacheAPI.open(name)) ?? new Nothing();
    if (this.keep.kind === "memory") {
      this.notice("This browser keeps nothing for this page (a private window?): the model is downloaded at every visit.");
    } else if (this.keep.locked) {
      this.notice("Another tab is loading this model: what this tab downloads is not kept.");
    }
    this.room = Infinity;
    try {
      const {quota, usage} = await navigator.storage.estimate();
      this.room = quota - usage;
    } catch {
      // not every browser tells
    }
  }

  notice(text) {
    this.tell({type: "notice", text});
  }

  // write keeps bytes if that is possible; a model that cannot be kept runs all the same.
  async write(from, bytes) {
    if (this.full) {
      return;
    }
    if (bytes.length > this.room) {
      this.full = true;
    } else {
      try {
        await this.keep.write(from, bytes);
        this.room -= bytes.length;
        return;
      } catch {
        this.full = true;
      }
    }
    this.notice(`This browser has no room to keep the whole model (${megabytes(this.size)}): the rest is downloaded at every visit. Clearing other sites' data makes room.`);
  }

  // segment resolves to the bytes of neighbouring chunks {offset, size, sha256}, each checked.
  async segment(chunks, onbytes) {
    const from = chunks[0].offset;
    const last = chunks.at(-1);
    const to = last.offset + last.size;
    const part = bytes => chunks.map(c => bytes.subarray(c.offset - from, c.offset - from + c.size));
    const wrong = async bytes => {
      const good = await Promise.all(part(bytes).map(async (b, i) => b.length === chunks[i].size && (await sha256(b)) === chunks[i].sha256));
      return chunks.filter((_, i) => !good[i]);
    };
    const bytes = await this.keep.read(from, to).catch(() => new Uint8Array(0));
    let bad = await wrong(bytes);
    onbytes?.(0, chunks.reduce((sum, c) => sum + c.size, 0) - bad.reduce((sum, c) => sum + c.size, 0));
    if (bad.length === 0) {
      return part(bytes);
    }
    if (bytes.length === to - from && bytes.some(b => b !== 0)) {
      this.notice("A part of the kept model was damaged or missing; it is downloaded again.");
    }
    const whole = new Uint8Array(to - from);
    whole.set(bytes);
    for (let tries = 0; bad.length > 0; tries++) {
      if (tries === 2) {
        throw failure("damaged", `${this.url}: bytes ${bad[0].offset} to ${bad[0].offset + bad[0].size} are not what the model's manifest says. The file at the server is damaged, or was replaced while it was loading: try again, or have it put there anew.`);
      }
      const [start, end] = [bad[0].offset, bad.at(-1).offset + bad.at(-1).size];
      whole.set(await range(this.url, start, end, {signal: this.abort.signal, onbytes: tries === 0 ? n => onbytes?.(n, 0) : undefined}), start - from);
      bad = await wrong(whole);
    }
    await this.write(from, whole);
    return part(whole);
  }

  /** The bytes of a file of the manifest. */
  async file(chunks) {
    const parts = await this.segment(JSON.parse(chunks));
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  /** expect says how many bytes begin will be asked for, before pictures can be used and in all. */
  expect(pictures, all) {
    this.progress = new Progress(this.tell, {pictures, chat: all});
  }

  /** begin starts to load chunks [{offset, size, sha256}], which stand in the order of their offsets, given as JSON. next hands them over. */
  begin(json) {
    this.segments = [];
    let end = 0;
    let start = 0;
    for (const c of JSON.parse(json)) {
      if (this.segments.length === 0 || c.offset + c.size - start > SEGMENT || c.offset - end >= HEADER) {
        this.segments.push([]);
        start = c.offset;
      }
      this.segments.at(-1).push(c);
      end = c.offset + c.size;
    }
    this.waiting = [];
    this.reach();
  }

  // reach has as many segments on their way as may be.
  reach() {
    while (this.segments.length > 0 && this.waiting.length < AHEAD) {
      const loaded = this.segment(this.segments.shift(), (fetched, cached) => this.progress.add(fetched, cached));
      loaded.catch(() => {}); // it is told when its turn comes
      this.waiting.push(loaded);
    }
  }

  /** next resolves to the bytes of the next chunks, each a Uint8Array, or to null when all were handed over. */
  async next() {
    if (this.waiting.length === 0) {
      this.progress.report(true);
      return null;
    }
    const parts = await this.waiting[0];
    this.waiting.shift();
    this.reach();
    return parts;
  }

  /** close gives the file free and stops what is still on its way. */
  close() {
    this.abort.abort();
    this.progress?.end();
    this.keep?.close();
  }
}

// Progress tells of a download ten times a second at most and, where nothing comes, once a second, until it ends.
class Progress {
  constructor(tell, needs) {
    Object.assign(this, {tell, needs, total: needs.chat, fetched: 0, cached: 0, told: 0, soon: false, over: false, marks: [{at: performance.now(), fetched: 0}]});
  }

  // end is the last that is heard.
  end() {
    this.over = true;
    clearTimeout(this.later);
  }

  add(fetched, cached) {
    this.fetched += fetched;
    this.cached += cached;
    this.report(false);
  }

  report(now) {
    const at = performance.now();
    const early = this.told + 100 - at;
    if (this.over || this.soon && !now) {
      return;
    }
    clearTimeout(this.later);
    this.soon = !now && early > 0;
    if (this.soon) {
      this.later = setTimeout(() => this.report(true), early); // what comes in before is told even if nothing follows it
      return;
    }
    this.told = at;
    this.marks.push({at, fetched: this.fetched});
    while (this.marks.length > 2 && at - this.marks[0].at > 5000) {
      this.marks.shift();
    }
    const [first] = this.marks;
    const rate = at > first.at ? ((this.fetched - first.fetched) / (at - first.at)) * 1000 : 0;
    const done = Math.min(this.total, this.fetched + this.cached);
    this.tell({type: "progress", stage: "download", done, total: this.total, needs: this.needs, rate, left: rate > 0 ? (this.total - done) / rate : null, cached: this.cached});
    if (done < this.total) {
      this.later = setTimeout(() => this.report(true), 1000);
    }
  }
}
