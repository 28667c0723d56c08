// SPDX-License-Identifier: Apache-2.0

// The field in which a message of text and pictures is written. It knows no model: parts() is what was written, in its order.

import { el, picture, urlOf, onDrop } from '/dom.js';

export class Composer {
  // on = {send(), change(), fail(error)}
  constructor(field, on) {
    this.field = field;
    this.on = on;
    this.pieces = new WeakMap(); // element of a picture → {blob, name}
    this.at = null; // the last place of the cursor within the field
    try {
      field.contentEditable = 'plaintext-only';
    } catch {
      // Browsers without it get pasted text as text by the handler below.
    }
    field.addEventListener('keydown', (e) => {
      if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      on.send();
    });
    field.addEventListener('paste', (e) => this.paste(e));
    field.addEventListener('input', () => {
      // What is left of an emptied field is a line's end, which would hide the placeholder.
      if (/^\n*$/.test(field.textContent) && !field.querySelector('.pic')) field.replaceChildren();
      on.change();
    });
    document.addEventListener('selectionchange', () => {
      const s = getSelection();
      if (s.rangeCount && field.contains(s.anchorNode)) this.at = s.getRangeAt(0).cloneRange();
    });
    onDrop(field.closest('form'), (files, e) => {
      const place = document.caretRangeFromPoint?.(e.clientX, e.clientY);
      if (place && field.contains(place.startContainer)) this.at = place;
      this.add(files);
    });
  }

  async paste(e) {
    const files = [...e.clipboardData.files].filter((f) => f.type.startsWith('image/'));
    e.preventDefault();
    if (files.length > 0) return this.add(files);
    // The one way to insert text that the browser's own Undo knows.
    document.execCommand('insertText', false, e.clipboardData.getData('text/plain'));
  }

  // add puts pictures where the cursor is, in their order.
  async add(files) {
    for (const file of files) {
      try {
        this.insert(await picture(file), file.name || 'picture');
      } catch (e) {
        this.on.fail(e);
      }
    }
    this.field.focus();
    this.on.change();
  }

  insert(blob, name) {
    const img = el('img', { src: urlOf(blob), alt: `Picture: ${name}`, draggable: false });
    const close = el('button', { type: 'button', 'aria-label': `Remove ${name}`, textContent: '×', tabIndex: -1 });
    const pic = el('span', { class: 'pic', contentEditable: 'false' }, img, close);
    this.pieces.set(pic, { blob, name });
    close.addEventListener('click', () => {
      pic.remove();
      this.field.focus();
      this.on.change();
    });
    let range = this.at;
    if (!range || !this.field.contains(range.startContainer) || range.startContainer.parentElement?.closest('.pic')) {
      range = document.createRange();
      range.selectNodeContents(this.field);
      range.collapse(false);
    }
    range.deleteContents();
    range.insertNode(pic);
    range.setStartAfter(pic);
    range.collapse(true);
    this.at = range;
    const s = getSelection();
    s.removeAllRanges();
    s.addRange(range);
  }

  parts() {
    const parts = [];
    const text = (t) => {
      if (parts.at(-1)?.text !== undefined) parts.at(-1).text += t;
      else parts.push({ text: t });
    };
    const walk = (node) => {
      for (const child of node.childNodes) {
        if (this.pieces.has(child)) parts.push(this.pieces.get(child));
        else if (child.nodeType === Node.TEXT_NODE) text(child.data.replaceAll('\u00a0', ' '));
        else if (child.nodeName === 'BR') text('\n');
        else {
          if (child.nodeName === 'DIV' && parts.length > 0) text('\n');
          walk(child);
        }
      }
    };
    walk(this.field);
    return parts.map((p) => (p.blob ? p : { text: p.text.trim() })).filter((p) => p.blob || p.text);
  }

  empty() {
    return this.parts().length === 0;
  }

  // set replaces what is written.
  set(parts) {
    this.field.replaceChildren();
    this.at = null;
    for (const p of parts) {
      if (p.blob) this.insert(p.blob, p.name);
      else this.field.append(p.text);
      this.at = null;
    }
    this.on.change();
  }
}
