// SPDX-License-Identifier: Apache-2.0

// Loading a model: how far it is, what can be used already, and stopping. Pictures come first, then the language model.

import { Fromage } from '/fromage.js';
import { $, bytes, duration } from '/dom.js';
import * as problem from '/problem.js';
import { published } from '/sync.js';

// askFrom is the size of a model that is downloaded only when the person says so.
const askFrom = 200e6;

const stages = { download: 'Downloading', compile: 'preparing the GPU’s programs', gallery: 'Loading the gallery', warm: 'Warming up' };

export class Loading {
  // app is what app.js shares.
  constructor(app) {
    this.app = app;
    this.stopper = null;
    this.generation = 0; // counts loads: what an earlier one says is not heard
    $('loading-stop').onclick = () => this.stopper?.abort();
    $('loading-start').onclick = () => this.start(true);
  }

  // start loads app.model in place of the one that is loaded. A large one waits until the person has agreed, once.
  async start(agreed) {
    const { app } = this, { model } = app, mine = ++this.generation;
    this.under = {}; // the last word of each stage
    this.spoken = '';
    this.stopper?.abort();
    this.stopper = new AbortController();
    problem.hide();
    if (!isSecureContext) return app.fail({ code: 'insecure', message: `Browsers offer WebGPU only at secure addresses, and ${location.origin} is none.` });
    if (!navigator.gpu) return app.fail({ code: 'no-webgpu', message: 'The model runs on your GPU by WebGPU, which this browser does not have or has switched off. These have it:' });
    app.unload();
    $('loading').hidden = true;
    const bad = app.models.against.get(model);
    if (!agreed && bad?.never) return app.fail({ code: 'memory', message: `${app.models.name(model)} ${bad.why}.` });
    $('loading').hidden = false;
    $('loading-title').textContent = `Loading ${model.title} (${model.dtype})`;
    this.usable('Nothing can be used yet. You can write your message already.');
    if (!agreed && this.asks(model)) return this.ask(model);
    localStorage.setItem('agreed', model.hash);
    this.buttons({ stop: true });
    app.light('busy', 'Loading');
    const { signal } = this.stopper;
    try {
      const f = await Fromage.open({ model: model.url, gallery: model.index || null, sync: app.config.sync || null, name: model.name, kernels: localStorage.getItem('kernels') ?? '', signal, on: (e) => mine === this.generation && this.heard(e) });
      if (mine !== this.generation) return f.close();
      await app.begin(f);
      await f.ready;
      if (mine !== this.generation) return;
    } catch (e) {
      if (mine !== this.generation) return;
      if (signal.aborted || e.name === 'AbortError') return this.stopped();
      $('loading').hidden = true;
      if (e.code === 'memory' && !bad?.never) await app.models.refused();
      return app.fail(e);
    }
    $('loading').hidden = true;
    app.models.loaded();
    await app.complete();
  }

  // asks says whether the person is to agree before a model is downloaded.
  asks(model) {
    return model.bytes >= askFrom && localStorage.getItem('agreed') !== model.hash;
  }

  ask(model) {
    $('loading-title').textContent = model.title;
    $('loading-text').textContent = `The model is ${bytes(model.bytes)}. It is downloaded once and kept in this browser.`;
    $('loading-bar').hidden = true;
    this.buttons({ start: true });
    this.app.light('', 'Waiting for your word');
  }

  stopped() {
    $('loading').hidden = false;
    $('loading-text').textContent = 'Stopped. What has arrived is kept.';
    if (!this.app.f) this.usable('');
    this.buttons({ start: true });
    this.app.light('', 'Stopped');
  }

  buttons({ start = false, stop = false }) {
    $('loading-start').hidden = !start;
    $('loading-stop').hidden = !stop;
  }

  usable(text) {
    $('loading-usable').textContent = text;
  }

  heard(e) {
    switch (e.type) {
      case 'progress': return this.progress(e);
      case 'ready':
        if (e.what === 'pictures') this.app.announce('Search by picture and My pictures can be used. The language model is still coming.');
        return;
      case 'lost':
        this.app.light('busy', 'GPU lost, recovering');
        return this.app.notice(`The GPU was lost (${e.reason}). The model is put there again with the next answer.`);
      case 'recovered':
        if (this.app.ready) this.app.shine();
        return this.app.notice('The model is back on the GPU.');
      case 'version': return published(this.app, e);
      case 'notice': return this.app.notice(e.text);
    }
  }

  // progress shows the download, beside which the GPU's programs are compiled, and then what comes after it.
  progress(e) {
    this.under[e.stage] = e;
    const { download: d, compile: c } = this.under;
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
      text += main.rate > 0 ? ` · ${bytes(main.rate)}/s` : main.done > 0 && main.done > main.cached ? ' · nothing is coming at the moment' : '';
      if (main.left > 0) text += ` · ${duration(main.left)} left`;
      this.sayUsable(main);
    } else if (main.total > 1) text += `: ${main.done} of ${main.total}`;
    if (loading && c && c.done < c.total) text += `; ${stages.compile}: ${c.done} of ${c.total}`;
    $('loading-text').textContent = text;
    this.app.light('busy', main.total > 1 ? `Loading ${Math.floor(100 * main.done / main.total)} %` : what);
    if (main.stage !== this.spoken) this.app.announce(what);
    this.spoken = main.stage;
  }

  // sayUsable says what can be used, and what will be when.
  sayUsable({ done, needs, rate }) {
    if (this.app.f) return this.usable('Search by picture and “My pictures” can be used already. Chat and search by text come with the language model.');
    const left = needs.pictures - done;
    const when = left <= 0 ? 'in a moment' : `after ${bytes(left)} more${rate > 0 ? ` (${duration(left / rate)})` : ''}`;
    this.usable(`Search by picture and “My pictures” can be used ${when}, then chat and search by text. You can write your message already.`);
  }
}
