// SPDX-License-Identifier: Apache-2.0

// FROMAGe in the browser: pictures and text in, text and pictures out, computed on this machine. README.md describes the interface.

/** @typedef {"no-webgpu"|"no-adapter"|"insecure"|"memory"|"network"|"damaged"|"model"|"lost"|"quota"|"picture"|"input"} Code */
/** @typedef {string | Blob | {picture: number}} Part a piece of a prompt: text, a picture file, or a picture that embed keeps */
/** @typedef {{row: number, path: string, caption: string, licence: string, score: number, own: boolean}} Hit a picture found */
/**
 * @typedef {object} Options what the reference's arguments of the same names mean; those left out have its defaults
 * @property {number} [numWords] most tokens to generate
 * @property {number} [retScaleFactor] above 1, pictures come more eagerly
 * @property {number} [minWordTokens] tokens before pictures may come
 * @property {number} [temperature] 0 for the most likely token
 * @property {number} [topP]
 * @property {number} [maxNumRets] most times that pictures come in an answer
 * @property {number} [maxImgPerRet] pictures each time
 * @property {number} [seed]
 * @property {boolean} [ignoreEOS] go on after the end of the text, as the reference does
 */
/** @typedef {{text?: string, images?: Hit[], done?: {stop: string, tokens: number, msFirst: number, tokPerS: number, ids: number[]}}} Item */

/** What went wrong: code for programs, message for people. */
export class FromageError extends Error {
  /** @param {Code} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "FromageError";
    this.code = code;
  }
}

const aborted = () => new DOMException("The call was aborted.", "AbortError");
const toError = ({code, message}) => (code === "aborted" ? aborted() : new FromageError(code, message));

// Client talks to the worker.
class Client {
  #worker = new Worker(new URL("./worker.js", import.meta.url), {type: "module", name: "fromage"});
  #calls = new Map(); // by number: {resolve, reject, item}
  #last = 0;

  constructor(on) {
    this.#worker.addEventListener("message", ({data}) => {
      if (data.event) {
        on(data.event);
        return;
      }
      const call = this.#calls.get(data.id);
      if (!call) {
        return;
      }
      if (data.item) {
        call.item?.(data.item);
        return;
      }
      this.#calls.delete(data.id);
      if (data.error) {
        call.reject(toError(data.error));
      } else {
        call.resolve(data.result);
      }
    });
    this.#worker.addEventListener("error", event => {
      this.#fail(new FromageError("lost", `The worker stopped${event.message ? `: ${event.message}` : ""}. Reload the page.`));
    });
  }

  // call resolves to the result; item hears of each piece of a stream. Where keep is set, an aborted call still ends by itself.
  async call(name, args = {}, {signal, item, keep} = {}) {
    if (signal?.aborted && !keep) {
      throw aborted();
    }
    const id = ++this.#last;
    const cancel = () => this.#worker.postMessage({cancel: id});
    const result = new Promise((resolve, reject) => this.#calls.set(id, {resolve, reject, item}));
    this.#worker.postMessage({id, call: name, args});
    if (signal?.aborted) {
      cancel();
    }
    signal?.addEventListener("abort", cancel);
    try {
      return await result;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  // stream is call as an async iterator over the pieces, each of which observe hears of when it comes; who leaves it early aborts the call.
  async *stream(name, args, {signal, observe} = {}) {
    const items = [];
    let wake = () => {};
    let ended = false;
    let failed = null;
    const stop = new AbortController();
    const call = this.call(name, args, {
      signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
      keep: true,
      item: i => {
        observe?.(i);
        items.push(i);
        wake();
      },
    }).then(
      () => (ended = true),
      error => ([ended, failed] = [true, error]),
    ).then(() => wake());
    try {
      for (;;) {
        while (items.length > 0) {
          yield items.shift();
        }
        if (ended) {
          break;
        }
        await new Promise(resolve => (wake = resolve));
      }
      if (failed) {
        throw failed;
      }
    } finally {
      stop.abort();
      await call;
    }
  }

  #fail(error) {
    for (const {reject} of this.#calls.values()) {
      reject(error);
    }
    this.#calls.clear();
  }

  close() {
    this.#worker.terminate();
    this.#fail(new FromageError("lost", "This Fromage was closed."));
  }
}

// bytesOf reads a picture file for the worker.
async function bytesOf(blob) {
  if (!(blob instanceof Blob)) {
    throw new FromageError("input", "A picture must be a file (a Blob), or {picture: id} of one that was embedded.");
  }
  return new Uint8Array(await blob.arrayBuffer());
}

// pack makes of parts what the worker takes.
async function pack(parts) {
  const list = Array.isArray(parts) ? parts : [parts];
  return Promise.all(
    list.map(async p => {
      if (typeof p === "string") {
        return {text: p};
      }
      return Number.isInteger(p?.picture) ? {picture: p.picture} : {bytes: await bytesOf(p)};
    }),
  );
}

/** A dialogue that remembers its turns. */
class Conversation {
  /** @type {{parts: Part[], answer: Item[], stop: string}[]} the turns so far */
  turns = [];
  #client;
  #id = null;
  #raw;

  constructor(client, raw) {
    this.#client = client;
    this.#raw = raw;
  }

  async #open() {
    this.#id ??= this.#client.call("converse", {raw: this.#raw});
    return this.#id;
  }

  /**
   * say puts a turn and streams the answer. One that fails leaves no trace; one that is aborted stays as far as it got.
   * @param {Part[]|Part} parts @param {Options} [options] @param {{signal?: AbortSignal}} [control]
   * @returns {AsyncGenerator<Item>}
   */
  async *say(parts, options = {}, {signal} = {}) {
    const conversation = await this.#open();
    const observe = this.#follow(Array.isArray(parts) ? [...parts] : [parts]);
    yield* this.#client.stream("say", {conversation, parts: await pack(parts), options: JSON.stringify(options)}, {signal, observe});
  }

  /** retry answers the last turn again; with a seed of its own unless options have one. */
  async *retry(options = {}, {signal} = {}) {
    const last = this.turns.at(-1);
    if (!last) {
      throw new FromageError("input", "There is no turn to answer again.");
    }
    const conversation = await this.#open();
    this.turns.pop();
    const observe = this.#follow(last.parts);
    const seed = Math.floor(Math.random() * 2 ** 32);
    yield* this.#client.stream("retry", {conversation, options: JSON.stringify({seed, ...options})}, {signal, observe});
  }

  // follow notes a turn when the worker has it, which is when it says done.
  #follow(parts) {
    const turn = {parts, answer: [], stop: ""};
    return item => {
      if (item.done) {
        turn.stop = item.done.stop;
        this.turns.push(turn);
      } else {
        turn.answer.push(item);
      }
    };
  }

  /** undo takes the last turn back and returns it. */
  async undo() {
    const turn = this.turns.pop();
    if (!turn) {
      throw new FromageError("input", "There is no turn to take back.");
    }
    await this.#client.call("undo", {conversation: await this.#open()});
    return turn;
  }

  /** reset begins anew. */
  async reset() {
    this.turns = [];
    await this.#client.call("reset", {conversation: await this.#open()});
  }
}

/** The pictures that are searched: the gallery's, and the user's own. */
class Gallery {
  /** how many pictures there are */
  size = 0;
  #client;

  constructor(client, size) {
    this.#client = client;
    this.size = size;
  }

  /** add embeds a picture and keeps it in this browser; it resolves to its row. */
  async add(blob, {path = blob.name ?? "picture", caption = ""} = {}) {
    const {row, size} = JSON.parse(await this.#client.call("add", {bytes: await bytesOf(blob), path, caption, type: blob.type}));
    this.size = size;
    return row;
  }

  /** remove forgets a picture of the user's own. */
  async remove(row) {
    this.size = JSON.parse(await this.#client.call("remove", {row})).size;
  }

  /** @returns {Promise<{path: string, caption: string, licence: string, own: boolean}>} */
  async row(i) {
    return JSON.parse(await this.#client.call("row", {row: i}));
  }

  /** elsewhere lists the user's pictures that other models have read and this one has not. @returns {Promise<{path: string, caption: string, hash: string}[]>} */
  async elsewhere() {
    return JSON.parse(await this.#client.call("elsewhere"));
  }

  /** file resolves to the file of such a picture, and to null where it is gone. */
  async file(hash) {
    const bytes = await this.#client.call("file", {hash});
    return bytes && new Blob([bytes]);
  }

  /** picture resolves to the file of a picture of the user's own, and to null for others. */
  async picture(row) {
    const bytes = await this.#client.call("picture", {row});
    return bytes && new Blob([bytes]);
  }
}

/** A model in the browser. */
export class Fromage {
  /** @type {Promise<Fromage>} resolves when the language model is there too */
  ready;
  #client;
  #info;

  /**
   * load fetches a model, or takes it from this browser, and makes it ready.
   * With sync, the address of a server of versions, and the model's name there, heads and gallery come from it and follow it: an event {type: "version"}
   * tells of each change. kernels is what tune resolved to earlier on this GPU; a table that does not fit is not used. kv is how keys and values of
   * attention are kept, "f32" or "f16".
   * @param {{model: string, gallery?: string|null, sync?: string|null, name?: string, kernels?: string, kv?: string, signal?: AbortSignal, on?: (event: object) => void}} what
   * @returns {Promise<Fromage>}
   */
  static async load(what) {
    const f = await Fromage.open(what);
    try {
      await f.ready;
    } catch (error) {
      f.close();
      throw error;
    }
    return f;
  }

  /**
   * open is load that resolves as soon as pictures can be used: similar, embed, gallery. ready resolves when all can; calls that need the language
   * model wait for it.
   * @returns {Promise<Fromage>}
   */
  static async open({model, gallery = null, sync = null, name = "", kernels = "", kv = "f32", signal, on = () => {}}) {
    const f = new Fromage();
    f.#client = new Client(event => {
      if (event.type === "version" && f.gallery && !event.bundle) {
        f.gallery.size = event.size;
      }
      on(event);
    });
    const at = url => url && new URL(url, document.baseURI).href;
    try {
      f.#info = JSON.parse(await f.#client.call("load", {model: at(model), gallery: at(gallery), sync: at(sync)?.replace(/^http/, "ws"), name, kernels, kv}, {signal}));
    } catch (error) {
      f.#client.close();
      throw error;
    }
    f.gallery = new Gallery(f.#client, f.#info.gallerySize);
    f.ready = f.#client.call("rest", {}, {signal}).then(() => f);
    f.ready.catch(() => {}); // it is told to whoever waits for it, and to calls
    return f;
  }

  /** info tells of the device and the model. */
  async info() {
    return (this.#info = JSON.parse(await this.#client.call("info")));
  }

  /** @param {{raw?: boolean}} [how] raw: turns go to the model as they are, without "Q:" and "A:" */
  conversation({raw = false} = {}) {
    return new Conversation(this.#client, raw);
  }

  /** generate continues a prompt. @returns {AsyncGenerator<Item>} */
  async *generate(parts, options = {}, {signal} = {}) {
    yield* this.#client.stream("generate", {parts: await pack(parts), options: JSON.stringify(options)}, {signal});
  }

  /**
   * retrieve finds the k best pictures for a prompt. look, from 0 to 1, is how much the look of the prompt's first picture counts beside what the model says.
   * @returns {Promise<Hit[]>}
   */
  async retrieve(parts, {k = 10, look, signal} = {}) {
    return JSON.parse(await this.#client.call("retrieve", {parts: await pack(parts), k, look}, {signal}));
  }

  /** similar finds the k pictures that look most like one; the language model is not needed. @returns {Promise<Hit[]>} */
  async similar(picture, {k = 10, signal} = {}) {
    return JSON.parse(await this.#client.call("similar", {parts: await pack(picture), k}, {signal}));
  }

  /** caption says what a picture shows. */
  async caption(picture, {signal} = {}) {
    return JSON.parse(await this.#client.call("caption", {parts: await pack(picture)}, {signal}));
  }

  /** score says how likely a prompt's text is: natural logarithms. @returns {Promise<{logLikelihood: number, sum: number, tokens: number[]}>} */
  async score(parts, {signal} = {}) {
    return JSON.parse(await this.#client.call("score", {parts: await pack(parts)}, {signal}));
  }

  /** embed reads a picture once, for use in any number of prompts as {picture: id}. */
  async embed(blob, {signal} = {}) {
    return {id: await this.#client.call("embed", {bytes: await bytesOf(blob)}, {signal})};
  }

  /**
   * bench measures this GPU and the model on it for some minutes: what `fromage bench --json` writes. item hears of {done, total, what}.
   * @param {{tokens?: number, rows?: number, signal?: AbortSignal, item?: (piece: object) => void}} [what]
   */
  async bench({tokens = 32, rows = 16384, signal, item} = {}) {
    return JSON.parse(await this.#client.call("bench", {tokens, rows}, {signal, item}));
  }

  /** tune measures which forms of kernels are the fastest on this GPU, in less than a minute. @returns {Promise<string>} a table for open's kernels */
  async tune({quick = false, signal, item} = {}) {
    return this.#client.call("tune", {quick}, {signal, item});
  }

  /** loseDevice loses the GPU as a reset of its driver does: for tests of what comes after. */
  async loseDevice() {
    await this.#client.call("lose");
  }

  /** close ends the worker and gives the GPU's memory back. */
  close() {
    this.#client.close();
  }
}
