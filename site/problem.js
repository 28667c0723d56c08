// SPDX-License-Identifier: Apache-2.0

// The box that says what went wrong and what to do. It knows the codes of fromage.js's errors and nothing of what failed.

import { $, el, sentence } from '/dom.js';

const titles = {
  'no-webgpu': 'This browser has no WebGPU', 'no-adapter': 'No GPU can be used', insecure: 'This address is not secure', memory: 'The model does not fit',
  network: 'The model could not be downloaded', damaged: 'The model is damaged', model: 'The model cannot be used', lost: 'The GPU was lost', quota: 'There is no room to keep the model',
};
const advice = {
  'no-webgpu': ['Chrome or Edge 113 and later, on Windows, macOS, ChromeOS; on Android 12 and later from version 121.', 'Safari 26 and later, on macOS, iOS and iPadOS.',
    'Firefox 141 and later on Windows, 145 and later on Macs with Apple silicon.', 'On Linux: Chrome, started with --enable-unsafe-webgpu --enable-features=Vulkan.',
    'Without any of these: the fromage program runs the same model without a browser.'],
  'no-adapter': ['On Linux, Chrome and Chromium use the GPU only when started with --enable-unsafe-webgpu --enable-features=Vulkan.', 'Switch graphics acceleration on in the browser’s settings and start the browser anew.', 'Update the graphics driver.', 'Chrome and Edge say under chrome://gpu why WebGPU is off.'],
  insecure: ['Open the page by https:// or, on this machine, by http://localhost or http://127.0.0.1: browsers offer WebGPU only there.'],
  memory: ['Close other tabs and programs that use the GPU, then try again.'],
  network: ['See that “fromage serve” still runs, then try again: what has arrived is kept.'],
  damaged: ['Try again: the page fetches it anew.'],
  lost: ['Try again: the model is put onto the GPU anew, from this browser’s storage.', 'If it happens again, close other programs that use the GPU.'],
  quota: ['Free space on this device, or leave private browsing.'],
};

// title is a problem in a few words.
export const title = (e) => titles[e.code] ?? 'Something went wrong';

// show says what went wrong, what else may help (more), and offers actions, [label, f]; the first is the one to take.
export function show(e, more, actions) {
  $('problem-title').textContent = title(e);
  $('problem-text').textContent = sentence(e.message || String(e));
  $('problem-advice').replaceChildren(...[...more, ...(advice[e.code] ?? [])].map((t) => el('li', { textContent: t })));
  $('problem-actions').replaceChildren(...actions.map(([label, f], i) => el('button', {
    class: i === 0 ? 'primary' : undefined, textContent: label,
    onclick: () => {
      hide();
      f();
    },
  })));
  $('problem').hidden = false;
}

export function hide() {
  $('problem').hidden = true;
}
