// SPDX-License-Identifier: Apache-2.0

// The models that the server offers: which of them fit this device, which is used, and the person's choice. Browsers do not tell how much memory a GPU
// has; what they do tell is held against what a model needs, and an allocation that failed is remembered.
//
// A model is one of config.json: {name, url, title, bytes, dtype, hash, embedded, memory, buffer, index}.

import { $, el, bytes } from '/dom.js';

// device asks the browser what bears on a model's size. What it does not tell is Infinity.
export async function device() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  const estimate = await navigator.storage?.estimate?.().catch(() => null);
  const limits = adapter?.limits;
  return {
    buffer: limits ? Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize) : Infinity,
    room: estimate?.quota >= 0 ? estimate.quota - estimate.usage : Infinity,
    memory: navigator.deviceMemory * 2 ** 30 || Infinity,
    refused: Number(localStorage.getItem('refused')) || Infinity, // bytes of the smallest model that there was no room for
  };
}

// against says what speaks against a model on a device: {why} to go after its name, with never where it cannot run at all; null for nothing. have is how
// many bytes of it are kept already.
export function against(m, d, have = 0) {
  const needs = `needs ${bytes(m.memory)} of GPU memory`;
  if (m.buffer > d.buffer) return { never: true, why: `needs a buffer of ${bytes(m.buffer)}, and this GPU allows ${bytes(d.buffer)}` };
  if (m.memory >= d.refused) return { why: `${needs}, and this GPU had no room for ${bytes(d.refused)}` };
  if (m.memory > d.memory / 2) return { why: `${needs}, and this device says that it has ${Math.round(d.memory / 2 ** 30 * 4) / 4} GB of memory, half of which is planned for` };
  if (m.bytes - have > d.room) return { why: `takes ${bytes(m.bytes)}, and this browser has room for ${bytes(d.room)}: it would be downloaded at every visit` };
  return null;
}

export class Models {
  // use(model) is called when one is chosen.
  constructor(list, use) {
    this.list = list;
    this.use = use;
    this.against = new Map(); // model → what speaks against it, or null
    $('model').onchange = () => this.choose(list.find((m) => m.name === $('model').value));
    $('loading-other').onclick = (e) => {
      e.stopPropagation(); // a click beside the settings closes them
      if (!$('model').checkVisibility()) $('side-button').click();
      $('model').focus();
    };
    $('loading-other').hidden = list.length < 2;
    $('model-section').hidden = list.length < 2;
  }

  // judge looks at all models anew.
  async judge() {
    const d = await device();
    for (const m of this.list) this.against.set(m, against(m, d, await have(m)));
    $('model').replaceChildren(...this.list.map((m) => el('option', { value: m.name, textContent: `${m.dtype}, ${bytes(m.bytes)}${this.against.get(m) ? ' (may not fit)' : ''}${this.alike() ? '' : `: ${m.title}`}` })));
  }

  // pick chooses a model: the one that the person chose last, else the first of the server's that fits, else the smallest.
  async pick() {
    await this.judge();
    const last = this.list.find((m) => m.name === localStorage.getItem('model'));
    const fits = this.list.find((m) => !this.against.get(m));
    const smallest = [...this.list].sort((a, b) => a.memory - b.memory)[0];
    this.take(last ?? fits ?? smallest);
  }

  // choose is the person's choice.
  async choose(m) {
    localStorage.setItem('model', m.name);
    await this.judge();
    this.take(m);
  }

  take(m) {
    this.model = m;
    $('model').value = m.name;
    $('model-why').textContent = $('loading-why').textContent = this.why(m);
    this.use(m);
  }

  // why says why a model is used, where there is a choice or something speaks against it.
  why(m) {
    const bad = this.against.get(m);
    const it = this.list.length > 1 ? this.name(m) : 'It';
    if (bad) return `${it} may not work here: it ${bad.why}.`;
    if (this.list.length === 1) return '';
    if (localStorage.getItem('model') === m.name) return `${it} is your choice. It needs ${bytes(m.memory)} of GPU memory.`;
    const passed = this.list.slice(0, this.list.indexOf(m)).map((o) => ` ${this.name(o)} was passed over: it ${this.against.get(o).why}.`);
    return `${it} is what fits this device: it needs ${bytes(m.memory)} of GPU memory.${passed.join('')}`;
  }

  // name tells a model from the others in a few characters.
  name(m) {
    if (this.list.length === 1) return m.title;
    return this.alike() ? m.dtype : `${m.title} in ${m.dtype}`;
  }

  // alike says whether all are one model in several dtypes.
  alike() {
    return this.list.every((o) => o.title === this.list[0].title);
  }

  // smaller is the largest model that needs less than m and may work, of the same title if there is one; undefined for none.
  smaller(m) {
    const less = this.list.filter((o) => o.memory < m.memory && !this.against.get(o)?.never);
    const worth = (o) => (this.against.get(o) ? 0 : 2) + (o.title === m.title ? 1 : 0);
    return less.sort((a, b) => worth(b) - worth(a) || b.memory - a.memory)[0];
  }

  // refused notes that the GPU had no room for the model, loaded that it had.
  async refused() {
    const before = Number(localStorage.getItem('refused')) || Infinity;
    localStorage.setItem('refused', Math.min(before, this.model.memory));
    await this.judge();
    $('model').value = this.model.name;
  }

  loaded() {
    if (this.model.memory >= Number(localStorage.getItem('refused'))) localStorage.removeItem('refused');
  }

  // advice says what a person can do whose GPU has no room for the model.
  advice() {
    const m = this.model, s = this.smaller(m);
    if (!s) return ['No smaller model is offered here: fromage compile --dtype q8 makes one of half the memory of f16, --dtype q4 one of a third.'];
    return [`${s.title === m.title ? `${s.dtype} of the same model` : this.name(s)} needs ${bytes(s.memory)} of GPU memory instead of ${bytes(m.memory)}.`];
  }
}

// have is how many bytes of a model are kept in this browser.
async function have(m) {
  try {
    let dir = await navigator.storage.getDirectory();
    for (const name of ['fromage', 'models']) dir = await dir.getDirectoryHandle(name);
    return (await (await dir.getFileHandle(m.hash.slice(0, 32))).getFile()).size;
  } catch {
    return 0; // nothing, or a browser that keeps nothing
  }
}
