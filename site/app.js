// SPDX-License-Identifier: Apache-2.0

// The page: joins the views with the model that is loaded, says what runs where, and keeps settings.

import { $, el, bytes, sentence } from '/dom.js';
import * as problem from '/problem.js';
import { Loading } from '/loading.js';
import { Models } from '/models.js';
import { Pictures } from '/hits.js';
import { Chat } from '/chat.js';
import { Search } from '/search.js';
import { Mine } from '/mine.js';

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
  config: null, models: null, // what the server offers
  model: null, own: false, // the one that is chosen; it is the program's own, whose captions the page knows
  f: null, // the model, from when pictures can be used
  ready: false, // the language model is there too
  info: null, last: null,
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

  // announce has a screen reader say a text, after what it was told before.
  announce(text) {
    if (!text) return;
    $('announce').append(el('p', { textContent: text }));
    while ($('announce').childElementCount > 30) $('announce').firstChild.remove();
  },

  notice(text) {
    $('notice').textContent = sentence(text);
    $('notice').hidden = !text;
    clearTimeout(this.noticeTimer);
    this.noticeTimer = setTimeout(() => { $('notice').hidden = true; }, 15_000);
  },

  measured(done) {
    this.last = done;
    this.facts();
  },

  light(kind, text) {
    $('light').className = 'light ' + kind;
    $('brief').textContent = text;
  },

  // fail says what went wrong and what to do: in a line where the page goes on working, else in a box.
  fail(e) {
    console.error(e);
    if (['picture', 'input', 'quota'].includes(e.code)) return this.notice(e.message);
    const actions = [['Try again', () => this.loading.start(true)]], more = [];
    if (this.f && e.code !== 'lost') actions.unshift(['Close', () => {}]);
    if (e.code === 'memory') {
      more.push(...this.models.advice());
      const smaller = this.models.smaller(this.model);
      if (smaller) actions.unshift([`Use ${this.models.name(smaller)} (${bytes(smaller.bytes)})`, () => this.models.choose(smaller)]);
    }
    problem.show(e, more, actions);
    if (!this.ready) this.light('bad', problem.title(e));
  },

  // find finds the k best pictures for a prompt of texts and Blobs. One picture alone is compared with the others, which needs no language model; beside a
  // text its look counts too.
  find(parts, k, signal) {
    return parts.length === 1 && parts[0] instanceof Blob ? this.f.similar(parts[0], { k, signal }) : this.f.retrieve(parts, { k, look: 0.3, signal });
  },

  // use loads a model that was chosen.
  use(model) {
    this.model = model;
    this.own = model.embedded;
    this.chat.examples();
    this.loading.start(false);
  },

  // unload forgets the model that is loaded.
  unload() {
    this.chat.stopper?.abort();
    this.f?.close();
    this.f = null;
    this.ready = false;
    this.changed();
  },

  // begin is called when pictures can be used, complete when all can.
  async begin(f) {
    this.f = f;
    await this.mine.begin();
    await this.changed();
  },

  async complete() {
    this.ready = true;
    this.chat.begin();
    await this.changed();
    this.shine();
    this.announce('The model is loaded. You can chat and search.');
    if (location.hash === '#bench') (await import('/bench.js')).show(this);
  },

  // changed has the views look again at what they can do: another model, more of it, other pictures.
  async changed() {
    this.chat.enable();
    this.search.changed();
    await this.facts();
  },

  // shine says that the model can be used.
  shine() {
    this.light('good', `Ready · ${this.info.dtype} on ${this.info.adapter}`);
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

// ---- status

async function facts() {
  const { f } = app;
  if (f) {
    const info = await f.info();
    if (f !== app.f) return;
    app.info = info;
  }
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
    add('Kernels', i.choices ? `measured: ${Object.keys(i.choices).length} kinds run otherwise than by the rules` : '');
    add('Kept in', { opfs: 'this browser (OPFS)', cache: 'this browser (cache)', memory: 'memory only: gone with the page' }[i.storage]);
    add('Heads and pictures', i.version ? `version ${i.version}` : '');
    add('News', i.polling ? 'asked for every 5 s: no websocket gets through' : '');
    add('Gallery', app.f.gallery.size ? app.f.gallery.size.toLocaleString('en') + ' pictures' : 'none');
  } else if (m) {
    add('Model', m.title);
    add('Model size', bytes(m.bytes));
  }
  if (app.last) {
    add('Last answer by', app.last.version ? `version ${app.last.version}` : '');
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

// makeSide has settings and status come and go where there is no room for them beside the rest.
function makeSide() {
  const narrow = matchMedia('(max-width: 63rem)'), isOpen = () => $('side').classList.contains('open');
  const open = (on) => {
    $('side').classList.toggle('open', on);
    $('side-button').setAttribute('aria-expanded', on || !narrow.matches);
  };
  $('side-button').onclick = () => {
    if (!narrow.matches) return $('facts').scrollIntoView({ block: 'nearest' });
    open(!isOpen());
    if (isOpen()) [...$('side').querySelectorAll('select, input')].find((e) => e.checkVisibility()).focus();
  };
  narrow.onchange = () => open(false);
  document.addEventListener('keydown', (e) => {
    if (e.key !== 'Escape' || !isOpen()) return;
    open(false);
    $('side-button').focus();
  });
  document.addEventListener('click', (e) => !e.target.closest('#side, #side-button') && open(false));
  open(false);
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
    // The pictures and the index that came before the worker did are kept by it too.
    if (app.model?.index) fetch(app.model.index).catch(() => {});
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
  app.loading = new Loading(app);
  makeWorker();
  try {
    const response = await fetch('/config.json');
    if (!response.ok) throw new Error(`/config.json: ${response.status}`);
    app.config = await response.json();
  } catch (e) {
    app.light('bad', 'No server');
    return problem.show({ code: 'network', message: `The page’s server does not answer (${e.message}).` }, [], [['Reload', () => location.reload()]]);
  }
  app.pictures.prefix = app.config.pictures || null;
  if (app.config.models.length === 0) {
    app.light('bad', 'No model');
    return problem.show({ code: 'model', message: 'Nothing was published on this server yet: fromage push bundle puts a model here.' }, [], [['Reload', () => location.reload()]]);
  }
  app.models = new Models(app.config.models, (m) => app.use(m));
  await app.chat.restore();
  navigator.storage?.persist?.().catch(() => {});
  await app.models.pick();
}

begin();
