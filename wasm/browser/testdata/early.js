// SPDX-License-Identifier: Apache-2.0

// What TestEarly does while the server holds the language model back.

import {Fromage, FromageError} from "/fromage.js";

const plan = await (await fetch("/plan.json")).json();
const tell = (step, what) => fetch(`/report?step=${encodeURIComponent(step)}`, {method: "POST", body: JSON.stringify(what)});

let events = [];
const open = signal => {
  events = [];
  return Fromage.open({model: "/models/default.bundle", gallery: "/gallery/gallery.index", signal, on: e => events.push(e)});
};

async function hear(stream) {
  const heard = {text: "", images: [], done: null};
  for await (const item of stream) {
    heard.text += item.text ?? "";
    heard.images.push(...(item.images ?? []));
    heard.done = item.done ?? heard.done;
  }
  return heard;
}

const failure = async promise => {
  try {
    await promise;
    return null;
  } catch (error) {
    return {name: error.name, code: String(error.code), message: error.message, typed: error instanceof FromageError};
  }
};

// forget empties the model that is kept.
async function forget() {
  const dir = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("fromage")).getDirectoryHandle("models");
  for (const name of await Array.fromAsync(dir.keys())) {
    await dir.removeEntry(name);
  }
}

// early is what can be done before the language model has come.
async function early(f, picture) {
  const stop = new AbortController();
  const stopped = failure(f.caption(picture, {signal: stop.signal}));
  const hits = await f.similar(picture, {k: 3});
  stop.abort();
  return {hits, stopped: await stopped, events: events.filter(e => e.type === "ready").map(e => e.what), progress: events.findLast(e => e.stage === "download")};
}

// whole is what comes of calls that waited, and of those after it.
async function whole(f, waiting) {
  const hits = await waiting;
  await f.ready;
  const answers = [];
  for (const {parts, options} of plan.prompts) {
    answers.push(await hear(f.generate(parts, options)));
  }
  return {hits, answers, events: events.map(e => e.type)};
}

async function run() {
  const picture = await (await fetch(plan.picture)).blob();
  let f = await open();
  let waiting = f.retrieve(plan.query, {k: 3});
  const was = await early(f, picture);
  const other = await (await fetch(plan.other)).blob();
  const row = await f.gallery.add(other, {path: "mine.png"});
  const like = await f.similar([{picture: (await f.embed(other)).id}], {k: 2});
  await tell("pictures", {...was, row, like});
  await f.gallery.remove(row);
  await tell("release", "");
  await tell("whole", await whole(f, waiting));
  f.close();

  // The GPU goes away in between; the next call brings everything, and so waits.
  await forget();
  await tell("hold", "");
  f = await open();
  waiting = f.retrieve(plan.query, {k: 3});
  await tell("lost pictures", await early(f, picture));
  await f.loseDevice();
  const recovering = f.similar(picture, {k: 3});
  await tell("release", "");
  await recovering;
  await tell("lost whole", await whole(f, waiting));
  f.close();

  await forget();
  await tell("hold", "");
  f = await open();
  await tell("refuse", "");
  await tell("refused", {ready: await failure(f.ready), call: await failure(f.caption(picture)), hits: await f.similar(picture, {k: 3})});
  f.close();

  await forget();
  await tell("hold", "");
  const stop = new AbortController();
  f = await open(stop.signal);
  stop.abort();
  await tell("aborted", {ready: await failure(f.ready), call: await failure(f.caption(picture)), hits: await f.similar(picture, {k: 3})});
  f.close();
}

try {
  await run();
  await tell("done", "");
} catch (error) {
  await tell("done", `${error.name} ${error.code}: ${error.message}\n${error.stack}`);
}
