// SPDX-License-Identifier: Apache-2.0

// Taking a picture: on a phone by its own camera program, elsewhere from the camera's stream in a dialog.

import { $ } from '/dom.js';

export class Camera {
  // take(file) is called with each picture, fail(text) where there is none to be had.
  constructor(take, fail) {
    Object.assign(this, { take, fail, stream: null });
    $('camera').onchange = () => {
      for (const file of $('camera').files) take(file);
      $('camera').value = '';
    };
    $('camera-take').onclick = () => this.shoot();
    $('camera-close').onclick = () => $('camera-box').close();
    $('camera-box').addEventListener('close', () => this.stop());
  }

  async open() {
    if (!navigator.mediaDevices?.getUserMedia || matchMedia('(pointer: coarse)').matches) return $('camera').click();
    $('camera-take').disabled = true;
    $('camera-text').textContent = 'Waiting for the camera: allow this page to use it.';
    $('camera-box').showModal();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
      this.stop();
      this.stream = stream;
      if (!$('camera-box').open) return this.stop(); // closed while the browser asked
      $('camera-view').srcObject = stream;
      await $('camera-view').play();
      $('camera-text').textContent = 'The picture stays on this device.';
      $('camera-take').disabled = false;
      $('camera-take').focus();
    } catch (e) {
      $('camera-box').close();
      if (e.name === 'AbortError') return;
      this.fail(e.name === 'NotAllowedError' ? 'The browser does not let this page use the camera: allow it beside the address, or add a picture from a file.' : `There is no camera that can be used (${e.name}): add a picture from a file.`);
    }
  }

  shoot() {
    const view = $('camera-view'), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [view.videoWidth, view.videoHeight];
    canvas.getContext('2d').drawImage(view, 0, 0);
    canvas.toBlob((blob) => {
      $('camera-box').close();
      if (blob) this.take(new File([blob], 'photo.jpg', { type: 'image/jpeg' }));
    }, 'image/jpeg', 0.92);
  }

  // stop gives the camera free.
  stop() {
    this.stream?.getTracks().forEach((t) => t.stop());
    this.stream = null;
    $('camera-view').srcObject = null;
  }
}
