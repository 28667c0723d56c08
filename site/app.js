// SPDX-License-Identifier: Apache-2.0

// The page: loads a model, says how that goes and what can be used, keeps settings, and joins the views.

import { Fromage } from '/fromage.js';
import { $, el, bytes, duration } from '/dom.js';
import { Pictures } from '/hits.js';
import { Chat } from '/chat.js';
import { Search } from '/search.js';
import { Mine } from '/mine.js';

// askFrom is the size of a model that is downloaded only when the person says so.
const askFrom = 200e6;

// settings are the reference's arguments; [name, label, hint, least, most, step, value, kind].
const settings = [
  ['retScaleFactor', 'Picture eagerness', 'Factor on the logit of [RET]: above 1, pictures come more often.', 0, 3, 0.05, 1, 'range'],
  ['maxNumRets', 'Times pictures are shown', '', 0, 8, 1, 1],
  ['maxImgPerRet', 'Pictures each time', '', 0, 12, 1, 3],
  ['numWords', 'Length (tokens)', '', 1, 512, 1, 32],
  ['minWordTokens', 'Tokens before pictures', '', 0, 64, 1, 0],
  ['temperature', 'Temperature', '0 takes the likeliest token.', 0, 2, 0.05, 0, 'range'],
  ['topP', 'Top-p', 'Of the likeliest tokens; counts when the temperature is above 0.', 0.05, 1, 0.05, 1, 'range'],
  ['seed', 'Seed', '', 0, 2147483647, 1, 0],
];

const app = {
  f: null, info: null, config: null, model: null, own: false, last: null,
  pictures: new Pictures(),

  options() {
    const o = {};
    for (const [name, , , least, most, , value] of settings) {
      const n = $('set-' + name).valueAsNumber;
      o[name] = Number.isFinite(n) ? Math.min(most, Math.max(least, n)) : value;
    }
    if (o.temperature === 0) o.topP = 1;
    return o;
  },

  nextSeed() {
    $('set-seed').value = this.options().seed + 1;
    keepSettings();
  },

  announce(text) {
    $('announce').textContent = text;
  },

  notice(text) {
    $('notice').textContent = text;
    $('notice').hidden = !text;
    clearTimeout(this.noticeTimer);
    this.noticeTimer = setTimeout(() => { $('notice').hidden = true; }, 15_000);
  },

  measured(done) {
    this.last = done;
    this.facts();
  },

  // fail says what went wrong and what to do: in a line where the page goes on working, else in a box.
  fail(e) {
    console.error(e);
    if (['picture', 'input', 'quota'].includes(e.code)) this.notice(e.message);
    else problem(e);
  },

  tab(name) {
    for (const t of document.querySelectorAll('[role=tab]')) {
      const on = t.id === 'tab-' + name;
      t.setAttribute('aria-selected', on);
      t.tabIndex = on ? 0 : -1;
      $(t.getAttribute('aria-controls')).hidden = !on;
    }
  },

  facts,
};

// What stands above the message of an error, and advice that the page itself can give.
const titles = {
  'no-webgpu': 'This browser has no WebGPU', 'no-adapter': 'No GPU can be used', insecure: 'This address is not secure', memory: 'The model does not fit',
  network: 'The model could not be downloaded', damaged: 'The model is damaged', model: 'The model cannot be used', lost: 'The GPU was lost', quota: 'There is no room to keep the model',
};
const advice = {
  'no-webgpu': ['Chrome or Edge 113 and later, on Windows, macOS, ChromeOS; on Android 12 and later from version 121.', 'Safari 26 and later, on macOS, iOS and iPadOS.',
    'Firefox 141 and later on Windows, 145 and later on Macs with Apple silicon.', 'On Linux: Chrome, started with --enable-unsafe-webgpu --enable-features=Vulkan.',
    'Without any of these: the fromage program runs the same model without a browser.'],
  'no-adapter': ['On Linux, Chrome and Chromium use the GPU only when started with --enable-unsafe-webgpu --enable-features=Vulkan.', 'Switch graphics acceleration on in the browser’s settings and start the browser anew.', 'Update the graphics driver.', 'Chrome and Edge say under chrome://gpu why WebGPU is off.'],
  insecure: ['Open the page by https:// or, on this machine, by http://localhost or http://127.0.0.1: browsers offer WebGPU only there.'],
  memory: ['Close other tabs and programs that use the GPU, then try again.', 'Choose a model of a smaller dtype: q8 takes half the memory of f16, q4 a quarter.'],
  network: ['See that “fromage serve” still runs, then try again: what has arrived is kept.'],
  damaged: ['Try again: the page fetches it anew.'],
  lost: ['Try again: the model is put onto the GPU anew, from this browser’s storage.', 'If it happens again, close other programs that use the GPU.'],
  quota: ['Free space on this device, or leave private browsing.'],
};

function problem(e) {
  $('problem-title').textContent = titles[e.code] ?? 'Something went wrong';
  $('problem-text').textContent = e.message || String(e);
  $('problem-advice').replaceChildren(...(advice[e.code] ?? []).map((t) => el('li', { textContent: t })));
  const actions = [el('button', { class: 'primary', textContent: 'Try again', onclick: () => { hideProblem(); load(true); } })];
  if (app.f && e.code !== 'lost') actions.unshift(el('button', { textContent: 'Close', onclick: hideProblem }));
  const smaller = (app.config?.models ?? []).filter((m) => m.bytes < (app.model?.bytes ?? 0)).sort((a, b) => b.bytes - a.bytes)[0];
  if (e.code === 'memory' && smaller) actions.push(el('button', { textContent: `Use ${smaller.title} (${bytes(smaller.bytes)})`, onclick: () => { hideProblem(); choose(smaller); } }));
  $('problem-actions').replaceChildren(...actions);
  $('problem').hidden = false;
  if (!app.f) light('bad', titles[e.code] ?? 'Not working');
}

function hideProblem() {
  $('problem').hidden = true;
}

function light(kind, text) {
  $('light').className = 'light ' + kind;
  $('brief').textContent = text;
}

// ---- loading

let stopper = null;
let generation = 0; // counts loads: what an earlier one says is not heard

async function load(agreed) {
  const model = app.model, mine = ++generation;
  under = {};
  stopper?.abort();
  stopper = new AbortController();
  if (!isSecureContext) return problem({ code: 'insecure', message: `Browsers offer WebGPU only at secure addresses, and ${location.origin} is none.` });
  if (!navigator.gpu) return problem({ code: 'no-webgpu', message: 'The model runs on your GPU by WebGPU, which this browser does not have or has switched off. These have it:' });
  app.chat.stopper?.abort();
  await app.f?.close();
  app.f = null;
  app.chat.enable();
  $('loading').hidden = false;
  $('loading-title').textContent = `Loading ${model.title}`;
  $('loading-usable').textContent = 'Nothing can be used yet. You can write your message already.';
  if (!agreed && model.bytes >= askFrom && localStorage.getItem('agreed') !== model.hash) return ask(model);
  localStorage.setItem('agreed', model.hash);
  $('loading-start').hidden = true;
  $('loading-stop').hidden = false;
  light('busy', 'Loading');
  const g = app.config.gallery;
  try {
    const f = await Fromage.load({ model: model.url, gallery: g && model.gallery ? g.index : null, signal: stopper.signal, on: (e) => mine === generation && heard(e) });
    if (mine !== generation) return f.close();
    app.f = f;
    app.chat.begin();
  } catch (e) {
    if (mine !== generation) return;
    $('loading').hidden = true;
    if (stopper.signal.aborted || e.name === 'AbortError') return stopped();
    return app.fail(e);
  }
  $('loading').hidden = true;
  await shine();
  app.search.begin();
  await app.mine.begin();
  app.announce('The model is loaded. You can chat and search.');
}

// shine says that the model can be used.
async function shine() {
  await facts();
  light('good', `Ready · ${app.info.dtype} on ${app.info.adapter}`);
}

function ask(model) {
  $('loading-title').textContent = model.title;
  $('loading-text').textContent = `The model is ${bytes(model.bytes)}. It is downloaded once and kept in this browser.`;
  $('loading-bar').hidden = true;
  $('loading-stop').hidden = true;
  $('loading-start').hidden = false;
  $('loading-start').onclick = () => load(true);
  light('', 'Waiting for your word');
}

function stopped() {
  light('', 'Stopped');
  $('loading').hidden = false;
  $('loading-text').textContent = 'Stopped. What has arrived is kept.';
  $('loading-stop').hidden = true;
  $('loading-start').hidden = false;
  $('loading-start').onclick = () => load(true);
}

const stages = { download: 'Downloading', compile: 'preparing the GPU’s programs', gallery: 'Loading the gallery', warm: 'Warming up' };
let under = {}; // the last word of each stage
let spokenStage = '';

function heard(e) {
  switch (e.type) {
    case 'progress': return progress(e);
    case 'ready':
      $('loading-usable').textContent = e.what === 'search' ? 'Search and chat can be used in a moment.' : '';
      return;
    case 'lost':
      light('busy', 'GPU lost, recovering');
      return app.notice(`The GPU was lost (${e.reason}). The model is put there again with the next answer.`);
    case 'recovered':
      shine();
      return app.notice('The model is back on the GPU.');
    case 'notice': return app.notice(e.text);
  }
}

// progress shows the download, beside which the GPU's programs are compiled, and then what comes after it.
function progress(e) {
  under[e.stage] = e;
  const { download: d, compile: c } = under;
  const loading = d && d.done < d.total && e.stage !== 'warm';
  const main = loading ? d : e;
  const what = main.stage === 'download' && main.cached > 0 && main.cached >= main.done ? 'Reading from this browser’s storage' : stages[main.stage] ?? main.stage;
  let text = what[0].toUpperCase() + what.slice(1);
  const bar = $('loading-bar');
  bar.hidden = false;
  if (main.total > 1) {
    bar.max = main.total;
    bar.value = main.done;
  } else bar.removeAttribute('value');
  if (main.stage === 'download') {
    text += `: ${bytes(main.done)} of ${bytes(main.total)}`;
    if (main.rate > 0) text += ` · ${bytes(main.rate)}/s`;
    if (main.left > 0) text += ` · ${duration(main.left)} left`;
  } else if (main.total > 1) text += `: ${main.done} of ${main.total}`;
  if (loading && c && c.done < c.total) text += `; ${stages.compile}: ${c.done} of ${c.total}`;
  $('loading-text').textContent = text;
  light('busy', main.total > 1 ? `Loading ${Math.floor(100 * main.done / main.total)} %` : what);
  if (main.stage !== spokenStage) app.announce(what);
  spokenStage = main.stage;
}

// ---- status

async function facts() {
  if (app.f) app.info = await app.f.info();
  const list = [], add = (name, value) => value !== undefined && value !== '' && value !== null && list.push(el('dt', { textContent: name }), el('dd', { textContent: value }));
  const m = app.model;
  if (app.f) {
    const i = app.info;
    add('Model', m.title);
    add('GPU', i.adapter + (i.software ? ' (software: slow)' : ''));
    if (i.vendor && !i.adapter.toLowerCase().includes(i.vendor.toLowerCase())) add('Vendor', i.vendor);
    add('Weights', i.dtype);
    add('Model size', bytes(i.modelBytes));
    add('GPU memory', bytes(i.gpuBytes));
    add('Program’s memory', i.heapBytes ? bytes(i.heapBytes) : '');
    add('Dispatches a token', i.dispatchesPerToken);
    add('Kept in', { opfs: 'this browser (OPFS)', cache: 'this browser (cache)', memory: 'memory only: gone with the page' }[i.storage]);
    add('Gallery', app.f.gallery.size ? app.f.gallery.size.toLocaleString('en') + ' pictures' : 'none');
  } else if (m) {
    add('Model', m.title);
    add('Model size', bytes(m.bytes));
  }
  if (app.last) {
    add('Speed', app.last.tokPerS ? `${app.last.tokPerS.toFixed(1)} tok/s` : undefined);
    add('First token', app.last.msFirst ? `${Math.round(app.last.msFirst)} ms` : undefined);
  }
  add('Without network', navigator.serviceWorker?.controller ? 'works' : 'after a reload');
  add('Version', app.config?.version?.slice(0, 12));
  $('facts').replaceChildren(...list);
}

// ---- settings

function makeSettings() {
  const kept = read('settings');
  for (const [name, label, hint, least, most, step, value, kind] of settings) {
    const start = Number.isFinite(kept[name]) ? kept[name] : value;
    const number = el('input', { type: 'number', id: 'set-' + name, min: least, max: most, step, value: start });
    const row = el('label', { class: kind ? '' : 'plain', htmlFor: number.id }, el('span', { class: 'name', textContent: label }));
    if (kind) {
      const range = el('input', { type: 'range', min: least, max: most, step, value: start, 'aria-label': label });
      range.oninput = () => { number.value = range.value; };
      number.addEventListener('input', () => { range.value = number.value; });
      row.append(range);
    }
    row.append(number);
    if (hint) row.append(el('small', { textContent: hint }));
    $('settings').append(row);
  }
  $('settings').addEventListener('change', keepSettings);
  $('settings').addEventListener('submit', (e) => e.preventDefault());
  $('settings-reset').onclick = () => {
    for (const [name, , , , , , value] of settings) {
      $('set-' + name).value = value;
      $('set-' + name).dispatchEvent(new Event('input'));
    }
    keepSettings();
  };
}

function keepSettings() {
  localStorage.setItem('settings', JSON.stringify(app.options()));
}

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? {};
  } catch {
    return {};
  }
}

// ---- models

function choose(model) {
  app.model = model;
  app.own = model.embedded;
  localStorage.setItem('model', model.name);
  $('model').value = model.name;
  app.chat.examples();
  load(false);
}

function makeModels(models) {
  $('model').replaceChildren(...models.map((m) => el('option', { value: m.name, textContent: `${m.title}, ${m.dtype}, ${bytes(m.bytes)}` })));
  $('model-label').hidden = models.length < 2;
  $('model').onchange = () => choose(models.find((m) => m.name === $('model').value));
}

// ---- the page around the views

function makeTabs() {
  const tabs = [...document.querySelectorAll('[role=tab]')];
  tabs.forEach((t, i) => {
    t.onclick = () => app.tab(t.id.slice(4));
    t.onkeydown = (e) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[e.key];
      if (to === undefined) return;
      e.preventDefault();
      const next = tabs[to % tabs.length];
      next.focus();
      next.click();
    };
  });
}

function makeSide() {
  const open = (on) => {
    $('side').classList.toggle('open', on);
    $('side-button').setAttribute('aria-expanded', on);
  };
  $('side-button').onclick = () => open(!$('side').classList.contains('open'));
  document.addEventListener('keydown', (e) => e.key === 'Escape' && open(false));
  document.addEventListener('click', (e) => !e.target.closest('#side, #side-button') && open(false));
}

// A file that is dropped beside a place for it must not replace the page.
function makeDropping() {
  const show = (on) => { $('dropping').hidden = !on; };
  document.addEventListener('dragover', (e) => {
    e.preventDefault();
    show([...e.dataTransfer.types].includes('Files'));
  });
  document.addEventListener('dragleave', (e) => e.relatedTarget || show(false));
  document.addEventListener('drag-done', () => show(false));
  document.addEventListener('drop', async (e) => {
    e.preventDefault();
    show(false);
    const files = [...e.dataTransfer.files];
    if (files.length > 0 && !$('panel-chat').hidden) app.chat.composer.add(files);
  });
}

function makeWorker() {
  if (!navigator.serviceWorker) return;
  let asked = false;
  const offer = (worker) => {
    if (!worker || !navigator.serviceWorker.controller) return;
    $('update').hidden = false;
    $('update').onclick = () => {
      asked = true;
      worker.postMessage('take over');
    };
    app.notice('A new version of this page is ready: see Status.');
  };
  navigator.serviceWorker.addEventListener('controllerchange', () => {
    if (asked) return location.reload();
    facts();
    // The pictures that came before the worker did are kept by it too.
    for (const img of document.images) if (img.src.includes('/gallery/')) fetch(img.src).catch(() => {});
  });
  navigator.serviceWorker.register('/sw.js').then((r) => {
    offer(r.waiting);
    r.addEventListener('updatefound', () => r.installing?.addEventListener('statechange', (e) => e.target.state === 'installed' && offer(e.target)));
  }).catch((e) => console.warn('service worker:', e));
}

async function begin() {
  makeTabs();
  makeSide();
  makeDropping();
  makeSettings();
  app.chat = new Chat(app);
  app.search = new Search(app);
  app.mine = new Mine(app);
  makeWorker();
  $('loading-stop').onclick = () => stopper?.abort();
  try {
    const response = await fetch('/config.json');
    if (!response.ok) throw new Error(`/config.json: ${response.status}`);
    app.config = await response.json();
  } catch (e) {
    problem({ code: 'network', message: `The page’s server does not answer (${e.message}).` });
    $('problem-actions').replaceChildren(el('button', { class: 'primary', textContent: 'Reload', onclick: () => location.reload() }));
    return;
  }
  app.pictures.prefix = app.config.gallery?.pictures ?? null;
  makeModels(app.config.models);
  await app.chat.restore();
  navigator.storage?.persist?.().catch(() => {});
  choose(app.config.models.find((m) => m.name === localStorage.getItem('model')) ?? app.config.models[0]);
  app.search.say();
}

begin();
