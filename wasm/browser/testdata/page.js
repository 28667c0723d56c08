// SPDX-License-Identifier: Apache-2.0

// What the browser test does with fromage.js. It tells the test what came out, step by step.

import {Fromage, FromageError} from "/fromage.js";

const plan = await (await fetch("/plan.json")).json();
const tell = (step, what) => fetch(`/report?step=${encodeURIComponent(step)}`, {method: "POST", body: JSON.stringify(what)});

let events = [];
const load = () => {
  events = [];
  return Fromage.load({model: "/models/default.bundle", gallery: "/gallery/gallery.index", on: e => events.push(e)});
};
const count = type => events.filter(e => e.type === type).length;

// hear collects a stream; each hears of every piece.
async function hear(stream, each = () => {}) {
  const heard = {text: "", images: [], done: null};
  for await (const item of stream) {
    heard.text += item.text ?? "";
    heard.images.push(...(item.images ?? []));
    heard.done = item.done ?? heard.done;
    await each(item);
  }
  return heard;
}

const answers = async f => {
  const all = [];
  for (const {parts, options} of plan.prompts) {
    all.push(await hear(f.generate(parts, options)));
  }
  return all;
};

async function file(path) {
  return (await fetch(path)).blob();
}

// models opens the folder where models are kept.
async function models() {
  let dir = await navigator.storage.getDirectory();
  for (const name of ["fromage", "models"]) {
    dir = await dir.getDirectoryHandle(name);
  }
  return dir;
}

// change gives the kept model to f, which may change it.
async function change(f) {
  for await (const handle of (await models()).values()) {
    const data = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    const stream = await handle.createWritable();
    await stream.write(f(data));
    await stream.close();
  }
}

const failure = async promise => {
  try {
    await promise;
    return null;
  } catch (error) {
    return {name: error.name, code: String(error.code), message: error.message, typed: error instanceof FromageError};
  }
};

async function run() {
  await tell("wrong address", await failure(Fromage.load({model: "/models/none.bundle"})));
  await tell("no bundle", await failure(Fromage.load({model: "/fromage.js"})));
  await tell("keys in q8", await failure(Fromage.load({model: "/models/default.bundle", kv: "q8"})));

  let f = await load();
  await tell("load", {info: await f.info(), ready: count("ready"), progress: events.filter(e => e.stage === "download").at(-1)});
  await tell("answers", await answers(f));
  const hits = [];
  for (const parts of plan.queries) {
    hits.push(await f.retrieve(parts, {k: 10}));
  }
  await tell("hits", hits);
  const picture = await file(plan.picture);
  await tell("score", [await f.score(plan.prompts[0].parts), await f.score([picture, "a cat"])]);
  const kept = await f.embed(picture);
  await tell("picture hits", [await f.retrieve([picture, "a cat[RET]"], {k: 3}), await f.retrieve([{picture: kept.id}, "a cat"], {k: 3})]);
  await tell("look", [await f.retrieve([picture, "a cat"], {k: 3, look: 1}), await f.retrieve([picture, "a cat"], {k: 3, look: 0}), await f.similar(picture, {k: 3})]);
  await tell("caption", await f.caption(picture));

  const chat = f.conversation();
  const first = await hear(chat.say([picture, "What is this?"], {numWords: 8, ignoreEOS: true}));
  const second = await hear(chat.say("And now?", {numWords: 8, ignoreEOS: true}));
  await chat.undo();
  const again = await hear(chat.say("And now?", {numWords: 8, ignoreEOS: true}));
  const retried = await hear(chat.retry({numWords: 8, ignoreEOS: true}));
  const stop = new AbortController();
  const stopped = await hear(f.generate(plan.long.parts, plan.long.options, {signal: stop.signal}), () => stop.abort());
  const early = f.generate(plan.long.parts, plan.long.options);
  await early.next();
  await early.return();
  await tell("chat", {first, second, again, retried, turns: chat.turns.length, stopped});
  await tell("mistakes", [
    await failure(hear(f.generate("a", {topP: 2}))),
    await failure(hear(f.generate("a", {numWrods: 2}))),
    await failure(f.caption(new Blob(["no picture"]))),
    await failure(f.score([])),
    await failure(f.gallery.row(1000)),
    await failure(f.retrieve([picture, "a"], {look: 2})),
    await failure(f.similar("a")),
    await failure(f.retrieve("a", {signal: AbortSignal.abort()})),
  ]);

  const before = f.gallery.size;
  const row = await f.gallery.add(picture, {path: "mine.png", caption: "mine"});
  const spare = await Promise.all([1, 2, 3].map(async i => f.gallery.add(await file(plan.other), {path: `spare ${i}.png`})));
  await Promise.all(spare.map(i => f.gallery.remove(i)));
  await tell("add", {before, after: f.gallery.size, row, is: await f.gallery.row(row), bytes: (await f.gallery.picture(row)).size, own: await f.retrieve("a", {k: 100})});
  f.close();

  await tell("again", "");
  f = await load();
  const own = (await f.retrieve("a", {k: 100})).filter(h => h.own);
  await tell("second load", {size: f.gallery.size, own, bytes: (await f.gallery.picture(own[0].row)).size, progress: events.filter(e => e.stage === "download").at(-1)});
  f.close();

  await change(data => ((data[data.length >> 1] ^= 1), data));
  await tell("damaged", "");
  f = await load();
  await tell("healed", {answers: await answers(f), notices: count("notice")});
  f.close();
  await change(data => data.subarray(0, data.length >> 1));
  await tell("cut", "");
  f = await load();
  await tell("continued", {answers: await answers(f)});
  await tell("whole", "");
  const both = await Promise.all([load(), load()]);
  await tell("two", await Promise.all(both.map(answers)));
  both.forEach(one => one.close());

  const lost = [];
  for (const at of [0, 1, 5, 12]) {
    let seen = 0;
    events = [];
    lost.push({...(await hear(f.generate(plan.long.parts, plan.long.options), () => (seen++ === at ? f.loseDevice() : null))), events: events.map(e => e.type)});
  }
  await f.loseDevice();
  const idle = {caption: await f.caption(picture), hits: await f.retrieve(plan.queries[0], {k: 10})};
  await tell("lost", {lost, idle, calm: await hear(f.generate(plan.long.parts, plan.long.options))});
  f.close();

  // The same in browsers that lack something: workers in these folders take it away first.
  const without = [];
  for (const folder of ["nogpu", "noadapter"]) {
    const other = await import(`/${folder}/fromage.js`);
    const {name, code, message} = await other.Fromage.load({model: "/models/default.bundle"}).catch(error => error);
    without.push({name, code, message, typed: true});
  }
  await tell("without", without);
  const away = await import("/away/fromage.js");
  f = await away.Fromage.load({model: "/models/default.bundle"});
  await f.loseDevice();
  await tell("away", {failed: await failure(f.caption(picture)), caption: await f.caption(picture)});
  f.close();
  const offline = await import("/offline/fromage.js");
  f = await offline.Fromage.load({model: "/models/default.bundle", gallery: "/gallery/gallery.index"});
  await tell("offline", await answers(f));
  f.close();
  for (const folder of ["cache", "memory", "small"]) {
    if (folder === "small") {
      await change(() => new Uint8Array(0));
    }
    const other = await import(`/${folder}/fromage.js`);
    for (const time of ["first", "second"]) {
      const events = [];
      f = await other.Fromage.load({model: "/models/default.bundle", gallery: "/gallery/gallery.index", on: e => events.push(e)});
      const said = await answers(f);
      const row = await f.gallery.add(picture, {path: "mine.png"});
      await tell(`${folder} ${time}`, {
        storage: (await f.info()).storage, answers: said, notices: events.filter(e => e.type === "notice").map(e => e.text),
        bytes: (await f.gallery.picture(row)).size,
      });
      if (folder === "memory") {
        await f.loseDevice();
        await f.caption(picture);
      }
      f.close();
    }
  }
}

try {
  await run();
  await tell("done", "");
} catch (error) {
  await tell("done", `${error.name} ${error.code}: ${error.message}\n${error.stack}`);
}
