// SPDX-License-Identifier: Apache-2.0

// Own pictures: read by the model here, kept by fromage.js in this browser, found with the gallery's. None is sent anywhere.

import { $, el, picture, onDrop, plural, duration } from '/dom.js';

export class Mine {
  constructor(app) {
    this.app = app;
    this.rows = new Map(); // path → {row, path, caption}
    app.pictures.ownFile = async (hit) => (this.rows.has(hit.path) ? app.f?.gallery.picture(this.rows.get(hit.path).row) : null);
    this.others = []; // pictures that another model has read
    this.queue = [];
    this.stopped = false;
    this.running = false;
    for (const [button, input] of [['mine-files', 'mine-files-input'], ['mine-folder', 'mine-folder-input']]) {
      $(button).onclick = () => $(input).click();
      $(input).onchange = () => {
        this.add([...$(input).files]);
        $(input).value = '';
      };
    }
    $('mine-folder').hidden = !('webkitdirectory' in $('mine-folder-input')); // some phones choose no folders
    $('mine-stop').onclick = () => { this.stopped = true; };
    $('mine-read').onclick = () => this.put(this.others.map((o) => ({ ...o, file: () => app.f.gallery.file(o.hash) })));
    $('mine-clear').onclick = () => this.clear();
    onDrop($('panel-mine'), (files) => this.add(files));
  }

  // begin lists the pictures that were kept. Their rows come after the gallery's, whose numbers may have gaps.
  async begin() {
    this.rows.clear();
    const { gallery } = this.app.f;
    const own = async (i) => {
      const r = await gallery.row(i).catch(() => null);
      if (r?.own) this.rows.set(r.path, { row: i, path: r.path, caption: r.caption });
      return r?.own;
    };
    for (let i = gallery.size - 1; i >= 0 && (await own(i)); i--);
    for (let i = gallery.size; await own(i); i++);
    this.others = await gallery.elsewhere().catch(() => []);
    this.render();
  }

  async add(files) {
    const pictures = files.filter((f) => f.type.startsWith('image/') && !/(^|\/)\./.test(path(f)));
    const other = files.length - pictures.length;
    if (other > 0) this.app.notice(`${plural(other, 'file')} left out: not ${other === 1 ? 'a picture' : 'pictures'}.`);
    this.put(pictures.map((file) => ({ path: path(file), blob: file })));
  }

  // put queues pictures {path, blob}, or {path, caption, file()} of what is kept already, and reads them one after another.
  async put(pictures) {
    this.queue.push(...pictures);
    if (this.running || this.queue.length === 0) return;
    if (!this.app.f) {
      this.queue = [];
      this.app.notice('Pictures can be added once the model is loaded.');
      return;
    }
    this.running = true;
    this.stopped = false;
    $('mine-progress').hidden = false;
    const began = performance.now();
    let done = 0, failed = [];
    while (this.queue.length > 0 && !this.stopped && this.app.f) {
      const total = done + this.queue.length;
      $('mine-bar').max = total;
      $('mine-bar').value = done;
      const left = done > 0 ? ` · ${duration((performance.now() - began) / 1000 / done * (total - done))} left` : '';
      $('mine-text').textContent = `Reading picture ${done + 1} of ${total}${left}`;
      const p = this.queue.shift();
      try {
        await this.one(p);
      } catch (e) {
        failed.push(`${p.path}: ${e.message}`);
      }
      done++;
    }
    const rest = this.queue.length;
    this.queue = [];
    this.running = false;
    $('mine-progress').hidden = true;
    if (failed.length > 0) this.app.notice(`${plural(failed.length, 'picture')} could not be added. ${failed[0]}`);
    else if (rest > 0) this.app.notice(`Stopped: ${plural(rest, 'picture')} not added.`);
    else if (done > 0) this.app.announce(`${plural(done, 'picture')} added.`);
    this.render();
    this.app.changed();
  }

  async one(p) {
    const blob = p.file ? await p.file() : await picture(p.blob);
    if (!blob) throw new Error('it is no longer kept');
    const caption = p.caption ?? p.path.replace(/^.*\//, '').replace(/\.[^.]*$/, '').replace(/[-_]+/g, ' ');
    const row = await this.app.f.gallery.add(blob, { path: p.path, caption });
    if (this.rows.has(p.path)) await this.forget(p.path);
    this.rows.set(p.path, { row, path: p.path, caption });
    this.others = this.others.filter((o) => o.hash !== p.hash);
  }

  async forget(p) {
    await this.app.f.gallery.remove(this.rows.get(p).row);
    this.rows.delete(p);
  }

  async clear() {
    if (!confirm(`Remove ${plural(this.rows.size, 'picture')} from this browser?`)) return;
    this.stopped = true;
    await this.removing([...this.rows.keys()]);
  }

  async removing(paths) {
    try {
      for (const p of paths) await this.forget(p);
    } catch (e) {
      this.app.fail(e);
    }
    this.render();
    this.app.changed();
    this.app.announce(`${plural(paths.length, 'picture')} removed.`);
  }

  render() {
    const rows = [...this.rows.values()];
    $('mine-others').hidden = this.others.length === 0;
    $('mine-others-text').textContent = `${plural(this.others.length, 'picture')} of yours ${this.others.length === 1 ? 'was' : 'were'} read by another model.`;
    $('mine-count').textContent = rows.length ? `${plural(rows.length, 'picture')}, in this browser only.` : '';
    $('mine-clear').hidden = rows.length < 2;
    $('mine').replaceChildren(...rows.map((p) => {
      const card = this.app.pictures.card({ ...p, own: true }, (h) => this.app.chat.use(h));
      card.querySelector('.bar').append(el('button', { type: 'button', textContent: 'Remove', 'aria-label': `Remove: ${p.caption}`, onclick: () => this.removing([p.path]) }));
      return card;
    }));
  }
}

// path names a file by its place in the folder it came with.
const path = (file) => file.within || file.webkitRelativePath || file.name;
