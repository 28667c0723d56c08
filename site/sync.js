// SPDX-License-Identifier: Apache-2.0

// What the page says when the server has published: new heads, other pictures, another model.

import { bytes, plural } from '/dom.js';

// published tells of a version that the model has taken already, and has the views look again.
export async function published(app, e) {
  if (e.bundle) return renew(app);
  const news = [];
  if (e.heads) news.push('new heads');
  for (const [n, what] of [[e.added, 'added'], [e.removed, 'removed'], [e.changed, 'changed']]) if (n > 0) news.push(`${plural(n, 'picture')} ${what}`);
  const text = `Version ${e.seq}: ${news.join(', ') || 'nothing that shows'}${e.note ? ` (${e.note})` : ''}. The next answer uses it.`;
  app.notice(text);
  app.announce(text);
  document.body.dataset.version = e.seq;
  if (app.f) {
    await app.mine.begin(); // own pictures have other rows now
    await app.changed();
  }
}

let renewing = false, offered = '';

// renew has the page load the model that was published in place of its own, between two answers: the conversation goes on with it. It is told of again
// until that is so. A model so large that the person is to be asked first waits for a reload.
async function renew(app) {
  if (renewing) return;
  renewing = true;
  try {
    while (app.chat.stopper || app.mine.running) await new Promise((resolve) => setTimeout(resolve, 200));
    const response = await fetch('/config.json', { cache: 'no-cache' });
    if (!response.ok) return;
    const config = await response.json();
    const model = config.models.find((m) => m.name === app.model.name);
    if (!model || model.hash === app.model.hash) return;
    if (app.loading.asks(model)) {
      if (offered !== model.hash) app.notice(`A new model of ${bytes(model.bytes)} was published. Reload the page to use it.`);
      offered = model.hash;
      return;
    }
    app.config = config;
    app.notice(`A new model was published: ${model.title} (${model.dtype}). It is loaded now.`);
    await app.models.renew(config.models, model);
  } catch (e) {
    console.warn('a new model:', e);
  } finally {
    renewing = false;
  }
}
