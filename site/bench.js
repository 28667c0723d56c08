// SPDX-License-Identifier: Apache-2.0

// The view at #bench: measures this GPU and the model on it, and which forms of kernels are the fastest here. It knows the report and nothing of how it
// comes about.

import { el, sentence } from '/dom.js';

const number = (n) => (n === undefined ? '' : Number(n.toPrecision(3)).toLocaleString('en', { maximumSignificantDigits: 3 }));
const share = (n) => `${Math.round(100 * n)} %`;

// table makes rows of texts; the first is the head.
function table(caption, [head, ...rows]) {
  const cells = (kind, row) => el('tr', {}, ...row.map((t) => el(kind, { textContent: t })));
  return el('div', { class: 'scroll' }, el('table', {}, el('caption', { textContent: caption }), el('thead', {}, cells('th', head)), el('tbody', {}, ...rows.map((r) => cells('td', r)))));
}

// tables shows a report as fromage bench prints it.
export function tables(report) {
  const c = report.ceilings, all = [];
  all.push(table(report.device.adapter, [
    ['copy, GB/s', 'matrices, TFLOP/s', 'a dispatch, µs', 'a submit and a wait, µs'],
    [number(c.copy_gb_per_s), number(c.matmul_tflop_per_s), number(c.dispatch_us), number(c.submit_us)],
  ]));
  for (const m of report.models) {
    all.push(table(`${m.name} ${m.dtype}`, [
      ['decode, tok/s', 'of copy', `prompt of ${m.prefill_tokens}, tok/s`, `first token after ${m.first_token_after}, ms`, 'pictures/s', 'dispatches, submits, reads a token'],
      [number(m.decode_tok_per_s), share(m.copy_share), number(m.prefill_tok_per_s), number(m.first_token_ms), number(m.images_per_s),
        [m.dispatches_per_token, number(m.submits_per_token), number(m.reads_per_token)].join(', ')],
    ]));
    for (const p of m.programs ?? []) {
      all.push(table(`${p.name}, ${p.work}: ${number(p.ms)} ms, ${number(p.bytes / 1e6)} MB, ${number(p.flops / 1e9)} GFLOP`, [
        ['kernel', 'dispatches', 'µs', 'share', 'MB', 'GB/s', 'of copy', 'TFLOP/s', 'of best'],
        ...p.kernels.map((k) => [k.kernel, k.dispatches, number(k.us), share(k.share), number(k.bytes / 1e6), number(k.gb_per_s), share(k.copy_share), number(k.tflop_per_s), share(k.matmul_share)]),
      ]));
    }
  }
  for (const s of report.searches ?? []) {
    all.push(table('search', [['rows', 'ms', 'GB/s', 'of copy'], [s.rows.toLocaleString('en'), number(s.ms), number(s.gb_per_s), share(s.copy_share)]]));
  }
  return all;
}

// show puts the view above the others.
export function show(app) {
  const told = el('p', { class: 'hint', role: 'status', textContent: 'Measuring takes from half a minute to some minutes. Other tabs that use the GPU disturb it.' });
  const results = el('div', { id: 'bench-results' }), copy = el('button', { textContent: 'Copy as JSON', hidden: true });
  const measure = el('button', { id: 'bench-measure', class: 'primary', textContent: 'Measure' }), tune = el('button', { id: 'bench-tune', textContent: 'Find the fastest kernels' });
  const item = (p) => { told.textContent = `${sentence(p.what)}: ${p.done} of ${p.total}`; };
  // run has one of the buttons do f, and says what it came to.
  const run = (button, f) => {
    button.onclick = async () => {
      measure.disabled = tune.disabled = true;
      try {
        told.textContent = await f();
      } catch (e) {
        told.textContent = sentence(e.message);
      }
      measure.disabled = tune.disabled = false;
    };
  };
  run(measure, async () => {
    const report = { version: app.config?.version ?? '', ...await app.f.bench({ item }) };
    results.replaceChildren(...tables(report));
    copy.hidden = false;
    copy.onclick = () => navigator.clipboard.writeText(JSON.stringify(report, null, 2)).then(() => { told.textContent = 'Copied.'; }, (e) => { told.textContent = sentence(e.message); });
    return 'Done. Compare ratios within one run.';
  });
  run(tune, async () => {
    const text = await app.f.tune({ item }), { results: found, choices } = JSON.parse(text);
    localStorage.setItem('kernels', text);
    return `${Object.keys(choices).length} of ${found.length} classes of kernels will run in another form from the next load on.`;
  });
  document.querySelector('main').prepend(el('section', { id: 'bench', class: 'card' }, el('h2', { textContent: 'Speed' }), told, el('div', { class: 'row' }, measure, tune, copy), results));
}
