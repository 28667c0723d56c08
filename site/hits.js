// SPDX-License-Identifier: Apache-2.0

// Retrieved pictures: where they come from and how they look.

import { el, urlOf, plural } from '/dom.js';
import { plain } from '/transcript.js';

// Pictures finds the pictures of hits: those of the gallery on the server that the page came from, own ones in this browser.
export class Pictures {
  constructor() {
    this.prefix = null; // where the gallery's pictures are; null where there is no gallery
    this.ownFile = async () => null; // (hit) → Blob of an own picture
  }

  // own returns hits as they are kept: own pictures, whose rows are others after a reload, with their files.
  async own(hits) {
    return Promise.all(hits.map(async (h) => plain(h.own ? { ...h, blob: await this.ownFile(h) } : h)));
  }

  // blob returns the picture of a hit; one that cannot be had is an error.
  async blob(hit) {
    if (hit.blob) return hit.blob;
    if (hit.own) {
      const file = await this.ownFile(hit);
      if (!file) throw new Error(`${hit.path} is no longer among your pictures.`);
      return file;
    }
    const url = this.url(hit.path, hit.hash);
    const response = url && await fetch(url);
    if (!response?.ok) throw new Error(`${hit.path} is not on this server.`);
    return response.blob();
  }

  // url is the address of a gallery picture, null for one that lies elsewhere: the page asks no other server.
  url(path, hash) {
    if (!this.prefix || /^[a-z][a-z0-9+.-]*:/i.test(path)) return null;
    return this.prefix + path.split('/').map(encodeURIComponent).join('/') + (hash ? `?v=${hash}` : '');
  }

  // card shows a hit; use(hit) is called by its button.
  card(hit, use) {
    const name = hit.caption || hit.path;
    const img = el('img', { alt: name, loading: 'lazy', decoding: 'async', width: 160, height: 160 });
    const missing = () => img.replaceWith(el('div', { class: 'none', textContent: 'The picture is not here' }));
    img.addEventListener('error', missing);
    if (hit.blob) img.src = urlOf(hit.blob);
    else if (hit.own) this.blob(hit).then((b) => { img.src = urlOf(b); }, missing);
    else if (this.url(hit.path, hit.hash)) img.src = this.url(hit.path, hit.hash);
    else queueMicrotask(missing);
    const facts = [hit.score === undefined ? null : `score ${hit.score.toFixed(2)}`, hit.own ? 'yours' : hit.licence || 'licence unknown'];
    return el('li', {}, el('figure', { class: 'hit' }, img,
      el('figcaption', { title: hit.path }, name, el('small', { textContent: facts.filter(Boolean).join(' · ') })),
      el('div', { class: 'bar' }, el('button', { type: 'button', 'aria-label': `Use in message: ${name}`, textContent: 'Use in message', onclick: () => use(hit) }))));
  }

  // list shows hits in their order.
  list(hits, use) {
    return el('ul', { class: 'hits', 'aria-label': plural(hits.length, 'picture') }, ...hits.map((h) => this.card(h, use)));
  }
}
