// SPDX-License-Identifier: Apache-2.0

// The search view: pictures for a text, a picture, or both, as soon as they are given.

import { $, el, picture, urlOf, onDrop, plural } from '/dom.js';

// styles are the captions that the program's own model learned: it finds most by these.
const styles = ['an emoji of', 'a flat emoji of', 'a 3d emoji of', 'a flat icon of', 'a black icon of', 'a line pictogram of', 'a clipart drawing of', 'flag of'];
const page = 24;

export class Search {
  constructor(app) {
    this.app = app;
    this.k = page;
    this.blob = null;
    this.stopper = null;
    this.timer = 0;
    $('search-form').addEventListener('submit', (e) => {
      e.preventDefault();
      this.soon(0);
    });
    $('search-text').addEventListener('input', () => this.soon(300));
    $('search-style').addEventListener('change', () => this.soon(0));
    $('search-add').onclick = () => $('search-file').click();
    $('search-file').onchange = () => {
      this.take([...$('search-file').files]);
      $('search-file').value = '';
    };
    $('search-text').addEventListener('paste', (e) => {
      const files = [...e.clipboardData.files];
      if (files.length === 0) return;
      e.preventDefault();
      this.take(files);
    });
    $('search-more').onclick = () => {
      this.k += page;
      this.run();
    };
    onDrop($('panel-search'), (files) => this.take(files));
  }

  // changed is called when another model, more of it, or other pictures are there: what was asked is searched again.
  changed() {
    const { own } = this.app;
    if (own !== this.own) {
      this.own = own;
      $('search-style').hidden = !own;
      $('search-style').replaceChildren(...styles.map((s) => el('option', { value: s, textContent: s + ' …' })), el('option', { value: '', textContent: 'as written' }));
      $('search-text').placeholder = own ? 'violin' : 'Describe a picture…';
    }
    this.run();
  }

  // say tells how a search went, or what can be searched by.
  say(text) {
    const { f, ready } = this.app, n = f?.gallery.size;
    const by = ready ? 'Text, a picture (drop or paste it), or both' : 'A picture (drop or paste it); text as soon as the language model is here';
    $('search-status').textContent = text ?? (n ? `${by}. ${plural(n, 'picture')} here.` : f ? 'There are no pictures to search: add some under “My pictures”.' : 'Search by picture works in a moment, by text once the model is loaded.');
  }

  async take(files) {
    try {
      if (files.length > 0) this.set(await picture(files[0]));
    } catch (e) {
      this.app.notice(e.message);
    }
  }

  set(blob) {
    this.blob = blob;
    $('search-picture').replaceChildren();
    if (blob) {
      const close = el('button', { type: 'button', textContent: '×', 'aria-label': 'Remove the picture from the search', onclick: () => this.set(null) });
      $('search-picture').append(el('span', { class: 'pic' }, el('img', { src: urlOf(blob), alt: 'Picture searched by' }), close));
    }
    this.soon(0);
  }

  soon(ms) {
    clearTimeout(this.timer);
    this.k = page;
    this.timer = setTimeout(() => this.run(), ms);
  }

  query() {
    const text = $('search-text').value.trim();
    const style = this.app.own ? $('search-style').value : '';
    return [this.blob, text && (style ? `${style} ${text}` : text)].filter(Boolean);
  }

  async run() {
    this.stopper?.abort();
    const { f, ready } = this.app, parts = this.query();
    const waits = f && !ready && parts.some((p) => typeof p === 'string');
    if (parts.length === 0 || !f?.gallery.size || waits) {
      $('results').replaceChildren();
      $('search-more').hidden = true;
      return this.say(waits ? 'Text is searched as soon as the language model is here.' : undefined);
    }
    const stopper = this.stopper = new AbortController();
    this.say('Searching…');
    const began = performance.now();
    try {
      const hits = await this.app.find(parts, this.k, stopper.signal);
      if (stopper.signal.aborted) return;
      $('results').replaceChildren(...hits.map((h) => this.app.pictures.card(h, (hit) => this.app.chat.use(hit))));
      $('search-more').hidden = hits.length < this.k;
      this.say(`${plural(hits.length, 'picture')} of ${f.gallery.size.toLocaleString('en')}, best first, in ${Math.round(performance.now() - began)} ms.`);
    } catch (e) {
      if (stopper.signal.aborted || e.name === 'AbortError') return;
      this.say('');
      this.app.fail(e);
    }
  }
}
