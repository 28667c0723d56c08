// SPDX-License-Identifier: Apache-2.0

// Small things for making pages: elements, numbers for people, pictures from files. It knows no model and no view.

export const $ = (id) => document.getElementById(id);

// el makes an element. Properties are set as they are (class, aria-… and data-… as attributes); text goes in as text, never as markup.
export function el(tag, properties = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === 'class') e.className = value;
    else if (name.includes('-') || name === 'role') e.setAttribute(name, value);
    else e[name] = value;
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

// bytes writes a size in decimal units, as browsers' download lists do.
export function bytes(n) {
  if (!(n >= 0)) return 'unknown';
  for (const [unit, size] of [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]]) {
    if (n >= size) return `${(n / size).toFixed(n >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${Math.round(n)} B`;
}

// duration writes seconds.
export function duration(s) {
  if (!(s >= 0) || s === Infinity) return 'unknown';
  if (s < 1) return 'under 1 s';
  if (s < 90) return `${Math.round(s)} s`;
  return s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}

export const plural = (n, one, many = one + 's') => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

// sentence begins a text with a capital.
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// readable are the picture formats that the model's decoder reads.
const readable = ['image/png', 'image/jpeg', 'image/webp', 'image/gif', 'image/bmp'];
const maxPicture = 64 << 20;

// picture returns the file as a Blob that the model can read: what the browser knows and the model does not (AVIF, SVG, HEIC) is drawn anew as PNG.
export async function picture(file) {
  const name = file.name || 'picture';
  if (file.size > maxPicture) throw new Error(`${name} has ${bytes(file.size)}: at most ${bytes(maxPicture)} can be read.`);
  let decoded;
  try {
    file = new File([await file.arrayBuffer()], name, { type: file.type }); // the one on the disk may go or change
    decoded = await decode(file);
  } catch {
    throw new Error(`${name} is not a picture that this browser can read: use PNG, JPEG, WebP, GIF or BMP.`);
  }
  if (readable.includes(file.type)) {
    decoded.close?.();
    return file;
  }
  const canvas = el('canvas', { width: decoded.width || 512, height: decoded.height || 512 });
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(decoded, 0, 0, canvas.width, canvas.height);
  decoded.close?.();
  const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  return new File([blob], name.replace(/\.[^.]*$/, '') + '.png', { type: 'image/png' });
}

async function decode(file) {
  if (file.type !== 'image/svg+xml') return createImageBitmap(file);
  const url = URL.createObjectURL(file);
  try {
    const img = new Image();
    img.src = url;
    await img.decode();
    return img;
  } finally {
    URL.revokeObjectURL(url);
  }
}

const urls = new WeakMap();

// urlOf returns the same address for the same Blob, for as long as the page lives.
export function urlOf(blob) {
  if (!urls.has(blob)) urls.set(blob, URL.createObjectURL(blob));
  return urls.get(blob);
}

// download gives a Blob to the person as a file.
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const a = el('a', { href: url, download: name });
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// dropped lists the files of a drop or paste, those in folders too.
export async function dropped(transfer) {
  const entries = [...(transfer.items || [])].map((i) => i.kind === 'file' && i.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((e) => e.isDirectory)) return [...transfer.files];
  const files = [];
  for (const e of entries) await walk(e, files);
  return files;
}

async function walk(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    files.push(Object.assign(file, { within: entry.fullPath.replace(/^\//, '') }));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (some.length === 0) return;
    for (const e of some) await walk(e, files);
  }
}

// onDrop has an element take files; it shows that it would.
export function onDrop(target, take) {
  const has = (e) => e.dataTransfer && [...e.dataTransfer.types].includes('Files');
  target.addEventListener('dragover', (e) => {
    if (!has(e)) return;
    e.preventDefault();
    target.classList.add('over');
  });
  target.addEventListener('dragleave', () => target.classList.remove('over'));
  target.addEventListener('drop', async (e) => {
    if (!has(e)) return;
    e.preventDefault();
    e.stopPropagation();
    target.classList.remove('over');
    document.dispatchEvent(new Event('drag-done'));
    take(await dropped(e.dataTransfer), e);
  });
}
