// SPDX-License-Identifier: Apache-2.0

// A conversation as one picture: what was said, in its order, and what was found, with captions and licences, on a canvas. It knows turns as
// transcript.js describes them, and no page.

import { el } from '/dom.js';

const width = 760, pad = 28, gap = 10; // in CSS pixels
const line = 23, small = 16; // heights of lines
const sans = 'system-ui, sans-serif';
const font = { text: `16px ${sans}`, small: `12px ${sans}`, title: `bold 18px ${sans}` };
const colour = { back: '#fffdf7', text: '#221d10', soft: '#655c46', said: '#fbeecb', line: '#ddd4bd', white: '#ffffff' };
const tall = 96, card = 168; // heights of pictures that were shown, widths of those that were found
const most = 16000; // device pixels along a side, which every browser's canvas has

const pen = el('canvas').getContext('2d'); // for measuring

// word is a piece of text that is not broken, picture one that stands in a line of text.
function word(text, f = font.text, fill = colour.text) {
  pen.font = f;
  return {
    w: pen.measureText(text).width, h: f === font.text ? line : small, space: /^\s+$/.test(text),
    draw(c, x, y, h) {
      Object.assign(c, { font: f, fillStyle: fill, textBaseline: 'middle' });
      c.fillText(text, x, y + h - this.h / 2);
    },
  };
}

function shown(bitmap) {
  const w = bitmap ? Math.min(width / 2, Math.max(24, tall * bitmap.width / bitmap.height)) : tall;
  return { w: w + 6, h: tall + 6, draw: (c, x, y) => place(c, bitmap, x + 3, y + 3, w, tall) };
}

// place draws a picture as large as it fits into a box, on white.
function place(c, bitmap, x, y, w, h) {
  c.fillStyle = bitmap ? colour.white : colour.line;
  c.beginPath();
  c.roundRect(x, y, w, h, 6);
  c.fill();
  if (!bitmap) return;
  const scale = Math.min(w / bitmap.width, h / bitmap.height);
  c.save();
  c.clip();
  c.drawImage(bitmap, x + (w - scale * bitmap.width) / 2, y + (h - scale * bitmap.height) / 2, scale * bitmap.width, scale * bitmap.height);
  c.restore();
}

// words breaks a text at spaces and ends of lines, and within what is wider than a line.
function* words(text, room, f, fill) {
  for (const part of text.split(/(\n|[^\S\n]+)/)) {
    if (part === '\n') yield null;
    else if (part) {
      const whole = word(part, f, fill);
      if (whole.w <= room) yield whole;
      else for (const letter of part) yield word(letter, f, fill);
    }
  }
}

// wrap sets pieces, null for the end of a line, into lines of at most room: {w, h, pieces: [{piece, x}]}.
function wrap(pieces, room) {
  const lines = [];
  let now = null;
  const begin = () => lines.push(now = { w: 0, h: 0, pieces: [] });
  for (const piece of pieces) {
    if (!now || !piece) begin();
    if (!piece) {
      now.h = line;
      continue;
    }
    if (now.w > 0 && now.w + piece.w > room) begin();
    if (piece.space && now.w === 0) continue;
    now.pieces.push({ piece, x: now.w });
    now.w += piece.w;
    now.h = Math.max(now.h, piece.h);
  }
  return lines;
}

const height = (lines) => lines.reduce((sum, l) => sum + l.h, 0);

function write(c, lines, x, y) {
  for (const l of lines) {
    for (const p of l.pieces) p.piece.draw(c, x + p.x, y, l.h);
    y += l.h;
  }
}

// A block is {h, draw(context, y)}.

function paragraph(text, f = font.text, fill = colour.text) {
  const lines = wrap(words(text, width - 2 * pad, f, fill), width - 2 * pad);
  return { h: height(lines), draw: (c, y) => write(c, lines, pad, y) };
}

function bubble(pieces) {
  const lines = wrap(pieces, 0.85 * width - 2 * pad), w = Math.max(...lines.map((l) => l.w), 0) + 24, h = height(lines) + 16, x = width - pad - w;
  return {
    h,
    draw(c, y) {
      c.fillStyle = colour.said;
      c.beginPath();
      c.roundRect(x, y, w, h, 12);
      c.fill();
      write(c, lines, x + 12, y + 8);
    },
  };
}

// row is up to four pictures that were found, {bitmap, caption, credit}.
function row(found) {
  const cards = found.map((f) => ({ ...f, lines: [...wrap(words(f.caption, card, font.small, colour.text), card), ...wrap(words(f.credit, card, font.small, colour.soft), card)] }));
  return {
    h: card + 6 + Math.max(...cards.map((f) => height(f.lines))),
    draw(c, y) {
      cards.forEach((f, i) => {
        const x = pad + i * (card + gap);
        place(c, f.bitmap, x, y, card, card);
        c.strokeStyle = colour.line;
        c.strokeRect(x, y, card, card);
        write(c, f.lines, x, y + card + 6);
      });
    },
  };
}

const decoded = (blob) => (blob ? createImageBitmap(blob).catch(() => null) : null);

async function blocks(turns, about, blobOf) {
  const out = [paragraph(about.title, font.title)];
  for (const turn of turns) {
    const said = [];
    for (const p of turn.prompt) {
      if (said.length > 0) said.push(word(' '));
      if (p.blob) said.push(shown(await decoded(p.blob)));
      else said.push(...words(p.text, 0.85 * width - 2 * pad));
    }
    out.push(bubble(said));
    for (const a of turn.answer) {
      if (a.note) out.push(paragraph(a.note, font.small, colour.soft));
      if (a.text?.trim()) out.push(paragraph(a.text.trim()));
      const found = await Promise.all((a.images ?? []).map(async (h) => ({
        bitmap: await decoded(await blobOf(h).catch(() => null)), caption: h.caption || h.path, credit: [h.score?.toFixed(2), h.own ? 'own' : h.licence].filter(Boolean).join(' · '),
      })));
      for (let i = 0; i < found.length; i += 4) out.push(row(found.slice(i, i + 4)));
    }
  }
  out.push(paragraph(`${about.model} · ${about.made.slice(0, 10)}`, font.small, colour.soft));
  return out;
}

// toPNG resolves to a PNG of a conversation. One that is too long for a picture is an error.
export async function toPNG(turns, about, blobOf) {
  const all = await blocks(turns, about, blobOf);
  const h = all.reduce((sum, b) => sum + b.h + gap, 2 * pad - gap);
  const scale = Math.min(2, most / h);
  if (scale < 0.75) throw new Error('The conversation is too long for one image: save it as HTML.');
  const canvas = el('canvas', { width: Math.round(scale * width), height: Math.round(scale * h) }), c = canvas.getContext('2d');
  c.scale(scale, scale);
  c.fillStyle = colour.back;
  c.fillRect(0, 0, width, h);
  let y = pad;
  for (const b of all) {
    b.draw(c, y);
    y += b.h + gap;
  }
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error('This browser cannot make an image of the conversation: save it as HTML.'))), 'image/png'));
}
