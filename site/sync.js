// SPDX-License-Identifier: Apache-2.0

// What the page says when the server has published: new heads, other pictures, another model.

import { plural } from '/dom.js';

// published tells of a version that the model has taken already, and has the views look again.
export async function published(app, e) {
  if (e.bundle) return app.notice('A new model was published. Reload the page to use it.');
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
