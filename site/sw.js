// SPDX-License-Identifier: Apache-2.0

// The service worker: after the first load the page works without a network. The server puts four lines before this text: FILES, the paths of the site's
// files, VERSION, a hash of them all, GALLERY, one of the indexes, and INDEX, the path of the first model's, or "". Bundles are not kept here: fromage.js
// keeps them, in checked pieces.

/* global VERSION, FILES, GALLERY, INDEX */
const site = 'site-' + VERSION;
const gallery = 'gallery-' + GALLERY;

self.addEventListener('install', (e) => e.waitUntil(install()));
self.addEventListener('activate', (e) => e.waitUntil(activate()));
self.addEventListener('message', (e) => e.data === 'take over' && self.skipWaiting());

async function install() {
  const cache = await caches.open(site);
  // Files that the page has just loaded are asked for by their entity tags, and not sent again.
  await Promise.all(['/', '/config.json', ...FILES].map(async (path) => {
    const response = await fetch(path, { cache: 'no-cache' });
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    await cache.put(path, response);
  }));
  // An index that there is no room for is asked for again at each load.
  if (INDEX) await caches.open(gallery).then((c) => c.add(INDEX)).catch(() => {});
}

async function activate() {
  for (const name of await caches.keys()) {
    if (/^(site|gallery)-/.test(name) && name !== site && name !== gallery) await caches.delete(name);
  }
  await self.clients.claim();
}

self.addEventListener('fetch', (e) => {
  const url = new URL(e.request.url);
  if (e.request.method !== 'GET' || url.origin !== location.origin || e.request.headers.has('range')) return;
  if (url.pathname === '/config.json' || /^\/gallery\/[^/]+\.index$/.test(url.pathname)) e.respondWith(fresh(e.request));
  else if (url.pathname.startsWith('/gallery/pictures/')) e.respondWith(kept(e.request, gallery));
  else if (url.pathname === '/' || FILES.includes(url.pathname)) e.respondWith(kept(url.pathname, site, e.request));
});

// fresh asks the server, and answers with what it said last where it does not answer.
async function fresh(request) {
  const cache = await caches.open(new URL(request.url).pathname === '/config.json' ? site : gallery);
  try {
    const response = await fetch(request);
    if (response.ok && request.cache !== 'no-store') await cache.put(request.url, response.clone());
    return response;
  } catch (e) {
    return (await cache.match(request.url, { ignoreVary: true })) ?? Promise.reject(e);
  }
}

// kept answers with what is kept, and keeps what is not yet.
async function kept(key, name, request = key) {
  const cache = await caches.open(name);
  const found = await cache.match(key, { ignoreVary: true });
  if (found) return found;
  const response = await fetch(request);
  if (response.ok && name === gallery) await cache.put(key, response.clone());
  return response;
}
