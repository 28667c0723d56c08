// SPDX-License-Identifier: Apache-2.0

// What the page keeps of its own in the browser: the conversation, in IndexedDB. Where the browser keeps nothing (private windows of some), everything
// works but is gone with the page.

const store = 'kept';
let opened;

function open() {
  opened ??= new Promise((done, fail) => {
    const request = indexedDB.open('fromage-page', 1);
    request.onupgradeneeded = () => request.result.createObjectStore(store);
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
  return opened;
}

async function within(mode, f) {
  const db = await open();
  return new Promise((done, fail) => {
    const transaction = db.transaction(store, mode);
    const request = f(transaction.objectStore(store));
    transaction.oncomplete = () => done(request.result);
    transaction.onerror = transaction.onabort = () => fail(transaction.error ?? request.error);
  });
}

// get resolves to what was put, undefined where there is nothing or nothing can be kept.
export const get = (key) => within('readonly', (s) => s.get(key)).catch(() => undefined);
export const put = (key, value) => within('readwrite', (s) => s.put(value, key));
