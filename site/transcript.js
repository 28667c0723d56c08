// SPDX-License-Identifier: Apache-2.0

// A conversation as data: how turns are put to the model, and how they are written to and read from files.
//
// A turn is {mode, prompt, answer, stop, tokens, msFirst, tokPerS, seed}. A prompt is a list of {text} and {blob, name}; an answer is a list of {text} and
// {images, note}, where an image is a hit of fromage.js.

// dress puts a question as the reference does its dialogues: "Q: …\nA:", after the pictures that begin it. Pictures alone are captioned where they
// begin the conversation, which takes an empty text; later, where a caption would be out of its place, they are asked about.
export function dress(prompt, mode, begins) {
  const parts = prompt.map((p) => p.blob ?? p.text);
  let first = parts.findIndex((p) => typeof p === 'string');
  if (first < 0 && (begins || mode !== 'ask')) return [...parts, ''];
  if (mode !== 'ask') return parts;
  if (first < 0) first = parts.push('What is this?') - 1;
  for (let i = first; i < parts.length; i++) {
    if (typeof parts[i] === 'string') parts[i] = (i === first ? 'Q: ' : ' ') + parts[i].trim();
  }
  if (typeof parts.at(-1) === 'string') parts[parts.length - 1] += '\nA:';
  else parts.push('\nA:');
  return parts;
}

// replay is what the model has read and written in these turns, for a conversation that it has not seen.
export function replay(turns) {
  const parts = [];
  turns.forEach((turn, i) => {
    if (i > 0) parts.push('\n');
    parts.push(...dress(turn.prompt, turn.mode, i === 0));
    for (const a of turn.answer) {
      if (a.text) parts.push(a.text);
      if (a.images && !a.note) parts.push('[RET]');
    }
  });
  return parts;
}

// caption is what an answer such as "Here is a black icon of cat." says that it shows.
export function caption(turn) {
  const text = turn.answer.map((a) => a.text ?? '').join('').trim();
  return text.replace(/^.*?\bhere (?:is|are)\s+/i, '').replace(/[.!]+$/, '').trim();
}

const format = 'fromage-conversation';
const maxImport = 256 << 20;

function dataURL(blob) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}

// withPictures replaces Blobs by data URLs. blobOf(hit) finds the picture of a hit; one that cannot be had is left out.
async function withPictures(turns, blobOf) {
  const out = [];
  for (const turn of turns) {
    const prompt = [];
    for (const p of turn.prompt) prompt.push(p.blob ? { picture: await dataURL(p.blob), name: p.name } : { text: p.text });
    const answer = [];
    for (const a of turn.answer) {
      if (!a.images) {
        answer.push({ text: a.text });
        continue;
      }
      const images = [];
      for (const { path, caption, licence, score, own } of a.images.map(plain)) {
        const blob = await blobOf({ path, own }).catch(() => null);
        images.push({ path, caption, licence, score, own, ...(blob && { picture: await dataURL(blob) }) });
      }
      answer.push({ images, ...(a.note && { note: a.note }) });
    }
    const { mode, stop, tokens, msFirst, tokPerS, seed } = turn;
    out.push({ mode, prompt, answer, stop, tokens, msFirst, tokPerS, seed });
  }
  return out;
}

// plain is a hit with what is kept of it.
export const plain = ({ row, path, caption, licence, score, own, blob }) => ({ row, path, caption, licence, score, own: !!own, ...(blob && { blob }) });

// toJSON writes a conversation with its pictures.
export async function toJSON(turns, about, blobOf) {
  return JSON.stringify({ format, version: 1, ...about, turns: await withPictures(turns, blobOf) }, null, 1);
}

// fromJSON reads what toJSON wrote. The file may be anyone's: everything in it is checked.
export async function fromJSON(file) {
  if (file.size > maxImport) throw new Error('The file is too large for a conversation.');
  let doc;
  try {
    doc = JSON.parse(await file.text());
  } catch {
    throw new Error('The file is not JSON: choose one that “Export as JSON” wrote.');
  }
  if (doc?.format !== format || doc.version !== 1 || !Array.isArray(doc.turns)) {
    throw new Error('The file is not a conversation: choose one that “Export as JSON” wrote.');
  }
  return doc.turns.map((turn, i) => {
    const bad = () => new Error(`Turn ${i + 1} of the file is not as it should be: the file is damaged.`);
    if (!['ask', 'find', 'raw'].includes(turn?.mode) || !Array.isArray(turn.prompt) || !Array.isArray(turn.answer)) throw bad();
    const prompt = turn.prompt.map((p) => {
      if (typeof p?.text === 'string') return { text: p.text };
      const blob = fromDataURL(p?.picture);
      if (!blob) throw bad();
      return { blob, name: String(p.name ?? 'picture') };
    });
    const answer = turn.answer.map((a) => {
      if (typeof a?.text === 'string') return { text: a.text };
      if (!Array.isArray(a?.images)) throw bad();
      const images = a.images.map((h) => {
        if (typeof h?.path !== 'string') throw bad();
        return plain({ row: -1, path: h.path, caption: text(h.caption), licence: text(h.licence), score: number(h.score), own: h.own === true, blob: fromDataURL(h.picture) });
      });
      return { images, ...(a.note && { note: text(a.note) }) };
    });
    return { mode: turn.mode, prompt, answer, stop: text(turn.stop), tokens: number(turn.tokens), msFirst: number(turn.msFirst), tokPerS: number(turn.tokPerS), seed: number(turn.seed) };
  });
}

const text = (v) => (typeof v === 'string' ? v : '');
const number = (v) => (typeof v === 'number' && isFinite(v) ? v : undefined);

function fromDataURL(url) {
  const m = /^data:(image\/(?:png|jpeg|webp|gif|bmp));base64,([A-Za-z0-9+/]*={0,2})$/.exec(typeof url === 'string' ? url : '');
  if (!m) return null;
  try {
    return new Blob([Uint8Array.from(atob(m[2]), (c) => c.charCodeAt(0))], { type: m[1] });
  } catch {
    return null;
  }
}

const escape = (s) => String(s ?? '').replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// toHTML writes a page that needs nothing but itself.
export async function toHTML(turns, { title, model, made }, blobOf) {
  const body = (await withPictures(turns, blobOf)).map((turn) => {
    const said = turn.prompt.map((p) => (p.picture ? `<img src="${escape(p.picture)}" alt="${escape(p.name)}">` : escape(p.text))).join(' ');
    const answer = turn.answer.map((a) => {
      if (!a.images) return `<p>${escape(a.text)}</p>`;
      const figures = a.images.map((h) => {
        const img = h.picture ? `<img src="${escape(h.picture)}" alt="${escape(h.caption || h.path)}">` : '';
        return `<figure>${img}<figcaption>${escape(h.caption || h.path)}<small>${escape([h.score?.toFixed(2), h.own ? 'own' : h.licence].filter(Boolean).join(' · '))}</small></figcaption></figure>`;
      });
      return (a.note ? `<p><small>${escape(a.note)}</small></p>` : '') + `<div>${figures.join('')}</div>`;
    });
    return `<section><blockquote>${said}</blockquote>${answer.join('')}</section>`;
  });
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escape(title)}</title><style>
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
blockquote{margin:1.5rem 0 .5rem;padding:.6rem .9rem;border-left:4px solid #f4b400;background:#f4b40022;white-space:pre-wrap}
img{max-width:128px;max-height:128px;background:#fff;vertical-align:middle;border-radius:6px}div{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;width:140px;font-size:.8rem}small{display:block;opacity:.7}p{white-space:pre-wrap}</style><h1>${escape(title)}</h1>${body.join('\n')}<p><small>${escape(`${model} · ${made.slice(0, 10)}`)}</small></p></html>\n`;
}
