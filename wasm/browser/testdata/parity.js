// SPDX-License-Identifier: Apache-2.0

// What TestParity and TestLosses do with fromage.js: the plan's prompts, then its queries, then its losses of the GPU.

import {Fromage} from "/fromage.js";

const plan = await (await fetch("/plan.json")).json();
const tell = (step, what) => fetch(`/report?step=${encodeURIComponent(step)}`, {method: "POST", body: JSON.stringify(what)});
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

async function hear(stream, each = () => {}) {
  const heard = {text: "", images: [], done: null};
  for await (const item of stream) {
    heard.text += item.text ?? "";
    heard.images.push(...(item.images ?? []));
    heard.done = item.done ?? heard.done;
    each(item);
  }
  return heard;
}

// tokens continues a prompt to the wanted length: an answer that ends earlier, at a newline, is gone on with from there.
async function tokens(f, {picture, text}) {
  const chat = f.conversation({raw: true});
  const parts = picture ? [await (await fetch(picture)).blob(), text] : [text];
  const ids = [];
  while (ids.length < plan.length) {
    const {done} = await hear(chat.say(ids.length ? [""] : parts, {...plan.options, numWords: plan.length - ids.length}));
    if (done.ids.length === 0) {
      throw new Error(`${text}: no token after ${ids.length}: ${done.stop}`);
    }
    ids.push(...done.ids);
  }
  return ids;
}

async function parity(f) {
  const start = performance.now();
  const answers = [];
  for (const prompt of plan.prompts) {
    answers.push(await tokens(f, prompt));
  }
  const said = performance.now();
  const hits = [];
  for (const query of plan.queries) {
    hits.push(await f.retrieve(query, {k: plan.k}));
  }
  await tell("parity", {answers, hits, ms: {answers: said - start, hits: performance.now() - said}});
}

// losses takes the GPU away at each of the plan's points, within [0,1) of an answer: after so many pieces and a part of a token's time. Where the answer
// was there before that reached the worker, it tries again.
async function losses(f, events) {
  const say = each => hear(f.generate(plan.long, plan.options), each);
  let pieces = 0;
  const start = performance.now();
  const calm = await say(item => (pieces += item.text ? 1 : 0));
  const each = (performance.now() - start) / calm.done.ids.length;
  const lost = [];
  for (const point of plan.points) {
    const at = Math.floor(point * (pieces - 1));
    const strike = () => sleep((point * (pieces - 1) - at) * each).then(() => f.loseDevice());
    for (let tries = 1; tries <= 10; tries++) {
      events.length = 0;
      let seen = 0;
      let struck = at === 0 ? strike() : null;
      const heard = await say(() => (struck = ++seen === at ? strike() : struck));
      heard.events = events.map(e => e.type);
      await struck;
      lost.push({...heard, point, at, tries});
      // A blow that came too late shows as a recovery alone, within the next try.
      if (heard.events.includes("lost") && heard.events.includes("recovered")) {
        break;
      }
    }
  }
  await tell("losses", {calm, lost, pieces, each, ms: performance.now() - start});
}

async function run() {
  const events = [];
  const f = await Fromage.load({model: "/models/default.bundle", gallery: "/gallery/gallery.index", on: e => events.push(e)});
  await tell("load", await f.info());
  if (plan.prompts) {
    await parity(f);
  }
  if (plan.points) {
    await losses(f, events);
  }
  f.close();
}

try {
  await run();
  await tell("done", "");
} catch (error) {
  await tell("done", `${error.name} ${error.code}: ${error.message}\n${error.stack}`);
}
