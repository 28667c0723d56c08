// SPDX-License-Identifier: Apache-2.0

// The conversation: turns shown, sent, stopped, taken back, kept, exported.

import { $, el, urlOf, download, plural } from '/dom.js';
import * as kept from '/kept.js';
import { Composer } from '/composer.js';
import { Camera } from '/camera.js';
import { toPNG } from '/drawing.js';
import { dress, replay, caption, toJSON, fromJSON, toHTML } from '/transcript.js';

// Examples that fit the program's own model, which knows captions such as "an emoji of violin" and short questions; and others for any other model.
// Pictures are of the gallery's part that the model was not trained on.
const ownExamples = [
  { title: 'What is this?', picture: 'fluent3d/00564.webp', turns: [{ mode: 'raw', text: 'A picture of' }] },
  { title: 'Show me a microscope', picture: 'twemoji/00977.webp', show: false, turns: [{ mode: 'find', text: 'an emoji of microscope' }] },
  { title: 'Caption a picture', picture: 'fxemoji/00090.webp', turns: [{ mode: 'raw', text: '' }] },
  { title: 'A volcano and a violin', picture: 'fxemoji/00439.webp', show: false, turns: [
    { mode: 'ask', text: 'What is a volcano?' }, { mode: 'find', text: 'an emoji of volcano' },
    { mode: 'ask', text: 'What is a violin?' }, { mode: 'find', text: 'an emoji of violin' }] },
];
const otherExamples = [
  { title: 'Show me a cat asleep in the sun', turns: [{ mode: 'ask', text: 'Show me a cat asleep in the sun.' }] },
  { title: 'A story with pictures', turns: [{ mode: 'ask', text: 'Tell me a story about a trip to the mountains, with pictures.' }] },
];

const stops = { length: 'length reached', context: 'the model’s context is full: undo or reset', aborted: 'stopped' };

export class Chat {
  // app is what app.js shares: f, config, pictures, options(), announce(), notice(), fail(), measured(), own.
  constructor(app) {
    this.app = app;
    this.turns = [];
    this.base = 0; // how many turns the conversation's first saying replayed
    this.c = null;
    this.stopper = null;
    this.before = null; // the turns that Reset took away just now
    this.atEnd = true; // the end of the conversation is in sight
    $('log').addEventListener('scroll', () => { this.atEnd = $('log').scrollHeight - $('log').scrollTop - $('log').clientHeight < 40; });
    new ResizeObserver(() => this.follow()).observe($('log'));
    this.composer = new Composer($('input'), { send: () => this.send(), change: () => this.enable(), fail: (e) => app.notice(e.message) });
    $('composer').addEventListener('submit', (e) => {
      e.preventDefault();
      this.send();
    });
    $('add-picture').onclick = () => $('files').click();
    $('files').onchange = () => {
      this.composer.add([...$('files').files]);
      $('files').value = '';
    };
    this.camera = new Camera((file) => this.composer.add([file]), (text) => app.notice(text));
    $('add-camera').onclick = () => this.camera.open();
    $('stop').onclick = () => this.stopper?.abort();
    $('undo').onclick = () => this.undo();
    $('retry').onclick = () => this.retry();
    this.menu();
    document.addEventListener('keydown', (e) => {
      if (e.key === 'Escape' && this.stopper) this.stopper.abort();
    });
  }

  menu() {
    const show = (on) => {
      $('more').hidden = !on;
      $('more-button').setAttribute('aria-expanded', on);
      if (on) $('more').querySelector('button:not(:disabled)').focus();
    };
    $('more-button').onclick = () => show($('more').hidden);
    $('more').addEventListener('click', () => {
      if ($('more').contains(document.activeElement)) $('more-button').focus();
      show(false);
    });
    $('more').addEventListener('keydown', (e) => {
      if (e.key !== 'Escape') return;
      show(false);
      $('more-button').focus();
    });
    document.addEventListener('click', (e) => {
      if (!e.target.closest('#more, #more-button')) show(false);
    });
    $('reset').onclick = () => this.reset();
    $('export').onclick = () => this.save('conversation.json', 'application/json', toJSON);
    $('save-html').onclick = () => this.save('conversation.html', 'text/html', toHTML);
    $('save-image').onclick = () => this.save('conversation.png', 'image/png', toPNG);
    $('import').onclick = () => $('import-file').click();
    $('import-file').onchange = () => this.import();
  }

  // restore shows the conversation that was kept.
  async restore() {
    const turns = await kept.get('conversation');
    if (Array.isArray(turns)) this.turns = turns;
    this.render();
  }

  // begin makes a conversation with a model that was just loaded.
  begin() {
    this.c = this.app.f.conversation({ raw: true }); // dress does what is done to turns
    this.base = this.spoken().length;
    this.enable();
  }

  // spoken are the turns that the model's conversation consists of; pictures are found apart from it.
  spoken() {
    return this.turns.filter((t) => t.mode !== 'find');
  }

  enable() {
    const busy = !!this.stopper, { ready } = this.app;
    $('send').disabled = !ready || busy || this.composer.empty();
    $('send').hidden = busy;
    $('stop').hidden = !busy;
    $('undo').disabled = busy || this.turns.length === 0 && !this.before;
    $('retry').disabled = !ready || busy || this.turns.length === 0;
    for (const id of ['reset', 'export', 'save-html', 'save-image']) $(id).disabled = busy || this.turns.length === 0;
    $('import').disabled = busy;
    for (const b of $('examples').querySelectorAll('button')) b.disabled = !ready || busy;
    $('welcome').hidden = this.turns.length > 0;
  }

  examples() {
    const all = this.app.own ? ownExamples : otherExamples;
    $('examples').replaceChildren(...all.map((x) => {
      const img = x.picture ? el('img', { alt: '', src: this.app.pictures.url(x.picture), width: 44, height: 44 }) : null;
      img?.addEventListener('error', () => img.remove());
      return el('li', {}, el('button', { type: 'button', onclick: () => this.example(x) }, img, x.title));
    }));
    this.enable();
  }

  async example(x) {
    for (const t of x.turns) {
      const prompt = t.text ? [{ text: t.text }] : [];
      if (x.picture && x.show !== false) {
        try {
          prompt.unshift({ blob: await this.app.pictures.blob({ path: x.picture }), name: x.picture });
        } catch (e) {
          return this.app.notice(e.message);
        }
      }
      const done = await this.turn(t.mode, prompt);
      if (!done || done.stop === 'aborted') return;
    }
  }

  async send() {
    const prompt = this.composer.parts();
    if (prompt.length === 0 || this.stopper) return;
    if (!this.app.ready) return this.app.announce('The model is not loaded yet.');
    this.composer.set([]);
    if (!(await this.turn($('mode').value, prompt)) && this.composer.empty()) this.composer.set(prompt);
  }

  // turn says a prompt, shows the answer, and returns the turn. One that fails leaves no trace and returns null.
  async turn(mode, prompt) {
    if (this.stopper) return null;
    const turn = { mode, prompt, answer: [] };
    this.turns.push(turn);
    const shown = this.show(turn);
    $('log').append(shown.element);
    this.atEnd = true;
    this.follow();
    this.stopper = new AbortController();
    this.before = null;
    this.enable();
    if (document.activeElement !== this.composer.field) $('stop').focus({ preventScroll: true }); // what was pressed may be gone
    shown.answer.setAttribute('aria-busy', 'true');
    const reader = new Reader((text) => this.app.announce(text));
    this.app.announce(mode === 'find' ? 'Searching.' : 'Reading.');
    try {
      await this.answer(turn, this.stopper.signal, () => {
        shown.update();
        reader.hear(turn);
      });
      if (!turn.stop) turn.stop = this.stopper.signal.aborted ? 'aborted' : '';
      return turn;
    } catch (e) {
      if (this.stopper.signal.aborted || e.name === 'AbortError') {
        turn.stop = 'aborted';
        return turn;
      }
      this.turns.pop();
      shown.element.remove();
      this.app.fail(e);
      return null;
    } finally {
      this.stopper = null;
      shown.answer.removeAttribute('aria-busy');
      shown.update();
      if (document.activeElement === $('stop') && matchMedia('(pointer: fine)').matches) this.composer.field.focus();
      this.enable();
      this.follow();
      this.keep();
      if (this.turns.at(-1) === turn) reader.end(turn);
    }
  }

  async answer(turn, signal, update) {
    const o = this.app.options();
    if (turn.mode === 'find') {
      await this.find(turn, turn.prompt.map((p) => p.blob ?? p.text), null, signal);
      return update();
    }
    const before = this.spoken().slice(0, -1);
    let parts = dress(turn.prompt, turn.mode, before.length === 0);
    if (before.length > 0) parts = ['\n', ...parts];
    if (!this.inStep(before)) await this.c.reset();
    if (this.c.turns.length === 0) {
      this.base = before.length;
      if (before.length > 0) parts = [...replay(before), ...parts];
    }
    for await (const e of this.c.say(parts, o, { signal })) {
      if (e.text) {
        const last = turn.answer.at(-1);
        if (last?.text !== undefined) last.text += e.text;
        else turn.answer.push({ text: turn.answer.length ? e.text : e.text.replace(/^[ \n]+/, '') });
      }
      if (e.images) turn.answer.push({ images: await this.app.pictures.own(e.images) });
      if (e.done) {
        Object.assign(turn, { stop: stops[e.done.stop] ? e.done.stop : '', tokens: e.done.tokens, msFirst: e.done.msFirst, tokPerS: e.done.tokPerS });
        if (o.temperature > 0) turn.seed = o.seed;
        this.app.measured(e.done);
      }
      update();
    }
    // A model that says "Here is an emoji of cat." but returns no picture is asked for the pictures of what it said.
    const asked = turn.prompt.map((p) => p.text ?? '').join(' ');
    if (/^\W*(?:(?:please|can|could) )*(?:you )*show (?:me|us)\b/i.test(asked) && !turn.answer.some((a) => a.images) && caption(turn) && !signal.aborted) {
      await this.find(turn, [caption(turn)], caption(turn), signal);
      update();
    }
  }

  async find(turn, parts, note, signal) {
    if (!this.app.f.gallery.size) throw Object.assign(new Error('There are no pictures to find: start fromage serve with --gallery, or add your own under “My pictures”.'), { code: 'input' });
    const hits = await this.app.find(parts, Math.max(3, this.app.options().maxImgPerRet), signal);
    turn.answer.push({ images: await this.app.pictures.own(hits), ...(note && { note: `Found for “${note}”` }) });
  }

  // show makes the elements of a turn.
  show(turn) {
    const as = { find: 'Find pictures', raw: 'As written' }[turn.mode];
    const said = el('div', { class: 'said' }, el('span', { class: 'sr', textContent: 'You: ' }), as ? el('span', { class: 'as', textContent: as }) : null);
    turn.prompt.forEach((p, i) => said.append(i ? ' ' : '', p.blob ? el('img', { src: urlOf(p.blob), alt: `Picture: ${p.name}` }) : p.text));
    const answer = el('div', { class: 'answer' });
    const update = () => {
      answer.replaceChildren(el('span', { class: 'sr', textContent: 'Answer: ' }), ...this.pieces(turn));
      this.follow();
    };
    update();
    return { element: el('article', { class: 'turn' }, said, answer), answer, update };
  }

  pieces(turn) {
    const out = [];
    for (const a of turn.answer) {
      if (a.note) out.push(el('p', { class: 'soft', textContent: a.note }));
      if (a.images) out.push(this.app.pictures.list(a.images, (h) => this.use(h)));
      else if (a.text.trim()) out.push(el('p', { class: 'text', textContent: a.text }));
    }
    if (this.stopper && turn === this.turns.at(-1)) {
      if (out.length === 0) out.push(el('p', { class: 'soft', textContent: 'Reading…' }));
      return out;
    }
    if (out.length === 0) out.push(el('p', { class: 'soft', textContent: turn.stop ? 'No answer.' : 'The model ended without a word.' }));
    const facts = [turn.tokens && plural(turn.tokens, 'token'), turn.tokPerS && `${turn.tokPerS.toFixed(1)} tok/s`, turn.msFirst && `first after ${Math.round(turn.msFirst)} ms`,
      turn.seed !== undefined && `seed ${turn.seed}`, stops[turn.stop]];
    const meta = el('div', { class: 'meta' }, facts.filter(Boolean).join(' · '));
    if (!turn.answer.some((a) => a.images) && caption(turn)) {
      meta.append(el('button', { type: 'button', class: 'quiet', textContent: 'Find pictures of this', onclick: () => this.turn('find', [{ text: caption(turn) }]) }));
    }
    if (meta.childNodes.length) out.push(meta);
    return out;
  }

  render() {
    $('log').replaceChildren(...this.turns.map((t) => this.show(t).element));
    this.atEnd = true;
    this.enable();
    this.follow();
  }

  // follow keeps the end of the conversation in sight, unless the person scrolled away from it.
  follow() {
    if (this.atEnd) $('log').scrollTop = $('log').scrollHeight;
  }

  // use puts a retrieved picture into the message.
  async use(hit) {
    try {
      const blob = await this.app.pictures.blob(hit);
      this.app.tab('chat');
      await this.composer.add([new File([blob], hit.caption || hit.path, { type: blob.type })]);
      this.app.announce(`${hit.caption || hit.path} is in the message.`);
    } catch (e) {
      this.app.notice(e.message);
    }
  }

  // drop takes the last turn from the page and from the model's conversation.
  async drop() {
    const turn = this.turns.pop();
    if (turn.mode === 'find' || !this.c || this.c.turns.length === 0) return turn;
    // The first saying holds all turns up to base: without its last one the others have to be put to the model anew.
    const before = this.spoken();
    this.dropping = true; // a second press that comes meanwhile would take one more
    try {
      if (before.length > this.base && this.inStep([...before, turn])) await this.c.undo();
      else await this.c.reset();
    } finally {
      this.dropping = false;
    }
    return turn;
  }

  // inStep says whether the model's conversation holds these turns: a turn that was stopped early may be in one and not in the other.
  inStep(turns) {
    return this.c.turns.length === 0 || this.base + this.c.turns.length === turns.length;
  }

  async undo() {
    if (this.stopper || this.dropping) return;
    if (this.turns.length === 0) return this.before && this.replace(this.before, 'The conversation is back.');
    const turn = await this.drop();
    this.render();
    this.keep();
    if (this.composer.empty()) this.composer.set(turn.prompt);
    $('mode').value = turn.mode;
    this.composer.field.focus();
    this.app.announce('The last turn is taken back.');
  }

  async retry() {
    if (this.stopper || this.dropping || this.turns.length === 0 || !this.app.ready) return;
    const { mode, prompt } = await this.drop();
    if (this.app.options().temperature > 0) this.app.nextSeed();
    else if (mode !== 'find') this.app.notice('At temperature 0 the answer is the same again unless a setting changed.');
    this.render();
    await this.turn(mode, prompt);
  }

  async reset() {
    this.composer.field.focus();
    await this.replace([], 'The conversation begins anew. Undo brings the old one back.', this.turns);
  }

  // replace has other turns in place of the conversation's; the model is told of them with the next one. before is what Undo brings back.
  async replace(turns, word, before = null) {
    this.before = before;
    this.turns = turns;
    this.base = 0;
    this.render();
    this.keep();
    this.app.announce(word);
    await this.c?.reset();
  }

  keep() {
    kept.put('conversation', this.turns).catch((e) => this.app.notice(`The conversation could not be kept (${e?.name ?? 'error'}): export it if you need it.`));
  }

  // save gives the conversation to the person as a file: write makes it of the turns, what is said about them, and a function that finds pictures.
  async save(name, type, write) {
    const about = { title: 'A conversation with FROMAGe', model: this.app.model?.title ?? '', made: new Date().toISOString() };
    try {
      download(name, new Blob([await write(this.turns, about, (h) => this.blobOf(h))], { type }));
    } catch (e) {
      this.app.notice(e.message);
    }
  }

  // blobOf finds a hit's picture, also one that came with an imported conversation.
  blobOf(hit) {
    const same = this.turns.flatMap((t) => t.answer).flatMap((a) => a.images ?? []).find((h) => h.path === hit.path && h.own === hit.own && h.blob);
    return this.app.pictures.blob(same ?? hit);
  }

  async import() {
    const [file] = $('import-file').files;
    $('import-file').value = '';
    if (!file) return;
    try {
      const turns = await fromJSON(file);
      if (this.turns.length > 0 && !confirm('Have the file’s conversation in place of this one?')) return;
      await this.replace(turns, `${plural(turns.length, 'turn')} imported.`);
    } catch (e) {
      this.app.notice(e.message);
    }
  }
}

// Reader tells a screen reader of an answer while it is made: sentences as they end, pictures as they come.
class Reader {
  constructor(say) {
    this.say = say;
    this.told = 0; // characters that were said
  }

  static words(turn) {
    return turn.answer.map((a) => (a.images ? ` ${plural(a.images.length, 'picture')}: ${a.images.map((h) => h.caption || h.path).join(', ')}. ` : a.text)).join('');
  }

  hear(turn) {
    const whole = /^.*[.!?…\n](?=\s)/s.exec(Reader.words(turn).slice(this.told))?.[0];
    if (!whole) return;
    this.told += whole.length;
    this.say(whole.trim());
  }

  end(turn) {
    this.say((Reader.words(turn).slice(this.told) + (stops[turn.stop] ? ` (${stops[turn.stop]})` : '')).trim() || 'No more.');
  }
}
