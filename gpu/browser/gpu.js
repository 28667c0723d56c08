// SPDX-License-Identifier: Apache-2.0

// The JavaScript half of the Go package fromage/gpu/browser. Load it as a module, in the page or the worker that runs the Go program, before
// the program starts. It registers itself as globalThis.fromageGPU, and uses no eval, so that a page may forbid that.
//
// It holds buffers, pipelines and bind groups by the handles that Go gives them, and runs a command list in one call: a call from Go costs more
// than the dispatch that it would ask for. Go has checked every handle, offset and size before they come here.

const maxGroups = 4096; // bind groups that are kept; a list with more of its own keeps them until the next list
const maxStaging = 4; // staging buffers that are kept for reads

// The commands of a list, as the Go package gpu documents them.
const DISPATCH = 1;
const COPY = 2;

class Session {
  // Go sets these: onlost(reason, message), and onfailure(kind, message) for what no call was there to be told.
  onlost = () => {};
  onfailure = () => {};

  constructor(device) {
    this.device = device;
    this.buffers = new Map(); // by handle: {buffer, hashes}, hashes being those of the bind groups that hold it
    this.pipelines = new Map(); // by handle: {name, pipeline, layout, params}
    this.groups = new Map(); // by hash of pipeline and buffers: a chain of {key, group, next}
    this.made = 0; // bind groups made since the last were dropped
    this.staging = []; // buffers to map, not in use
    this.scopes = new Set(); // promises of error scopes that are still open
    this.uniform = null;
    this.reserve(1 << 16, 1 << 16, 1 << 16);
    device.lost.then(info => this.onlost(info.reason ?? "unknown", info.message));
    device.addEventListener("uncapturederror", event => {
      event.preventDefault();
      this.onfailure(kindOf(event.error), event.error.message);
    });
  }

  // reserve makes room, in bytes, for what Go copies in before write and submit. Go asks for the arrays anew after it.
  reserve(bytes, words, params) {
    const grow = (old, size) => (old && old.length >= size ? old : new Uint8Array(size));
    this.bytes = grow(this.bytes, bytes);
    this.wordBytes = grow(this.wordBytes, words);
    this.words = new Uint32Array(this.wordBytes.buffer);
    this.params = grow(this.params, params);
  }

  // newBuffer resolves to undefined, or to [kind, message] where the browser refuses.
  newBuffer(handle, label, size) {
    const {device} = this;
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    let buffer = null;
    let thrown;
    try {
      buffer = device.createBuffer({label, size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST});
    } catch (error) {
      thrown = error;
    }
    this.buffers.set(handle, {buffer, hashes: new Set()});
    const scopes = [device.popErrorScope(), device.popErrorScope()];
    return Promise.all(scopes).then(errors => {
      const error = thrown ?? errors.find(e => e);
      if (error) {
        this.buffers.delete(handle);
        return [kindOf(error), error.message];
      }
    });
  }

  free(handle) {
    const {buffer, hashes} = this.buffers.get(handle);
    this.buffers.delete(handle);
    for (const hash of hashes) {
      this.groups.delete(hash); // with others of the same hash, which are made again when they are needed
    }
    buffer.destroy();
  }

  // write copies the first size bytes of this.bytes.
  write(handle, offset, size) {
    this.device.queue.writeBuffer(this.buffers.get(handle).buffer, offset, this.bytes, 0, size);
  }

  // writeFrom copies the whole of a Uint8Array.
  writeFrom(handle, offset, array) {
    this.device.queue.writeBuffer(this.buffers.get(handle).buffer, offset, array, 0, array.length);
  }

  // read resolves to {view, buffer}, once all that was submitted before is done: view is a Uint8Array of size bytes, good until unmap.
  async read(handle, offset, size) {
    const {device} = this;
    const i = this.staging.findIndex(b => b.size >= size);
    let buffer = i >= 0 ? this.staging.splice(i, 1)[0] : null;
    if (!buffer) {
      let room = 1 << 16;
      while (room < size) {
        room *= 2;
      }
      buffer = device.createBuffer({label: "staging", size: room, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
    }
    const encoder = device.createCommandEncoder({label: "read"});
    encoder.copyBufferToBuffer(this.buffers.get(handle).buffer, offset, buffer, 0, size);
    device.queue.submit([encoder.finish()]);
    const mapped = buffer.mapAsync(GPUMapMode.READ, 0, size);
    await Promise.all([...this.scopes, mapped]);
    return {view: new Uint8Array(buffer.getMappedRange(0, size)), buffer};
  }

  // unmap gives back what read resolved to.
  unmap({buffer}) {
    buffer.unmap();
    this.staging.push(buffer);
    if (this.staging.length > maxStaging) {
      this.staging.shift().destroy();
    }
  }

  // compile resolves to a pipeline for keep; it rejects with the compiler's messages, one a line, as name:line:column: message.
  async compile(name, code, params, bindings) {
    const {device} = this;
    const visibility = GPUShaderStage.COMPUTE;
    const entries = bindings.map((type, i) => ({binding: i + 1, visibility, buffer: {type}}));
    entries.unshift({binding: 0, visibility, buffer: {type: "uniform", hasDynamicOffset: true, minBindingSize: params}});
    device.pushErrorScope("validation");
    const layout = device.createBindGroupLayout({label: name, entries});
    const module = device.createShaderModule({label: name, code});
    const made = device
      .createComputePipelineAsync({
        label: name,
        layout: device.createPipelineLayout({label: name, bindGroupLayouts: [layout]}),
        compute: {module, entryPoint: "main"},
      })
      .catch(error => error);
    const [pipeline, scope] = await Promise.all([made, device.popErrorScope()]);
    if (!scope && pipeline instanceof GPUComputePipeline) {
      return {name, pipeline, layout, params};
    }
    const info = await module.getCompilationInfo();
    const lines = info.messages.filter(m => m.type === "error").map(m => `${name}:${m.lineNum}:${m.linePos}: ${m.message}`);
    throw new Error(lines.join("\n") || scope?.message || pipeline.message);
  }

  keep(handle, pipeline) {
    this.pipelines.set(handle, pipeline);
  }

  // submit runs the first count words of this.words as one list, whose parameters are the first paramBytes of this.params. What the browser
  // refuses of it comes to onfailure, before a later read or wait is done.
  submit(count, paramBytes) {
    const {device} = this;
    if (this.made > maxGroups) {
      this.dropGroups();
    }
    device.pushErrorScope("validation");
    try {
      if (paramBytes > 0) {
        this.writeParams(paramBytes);
      }
      const encoder = device.createCommandEncoder({label: "list"});
      this.encode(encoder, count);
      device.queue.submit([encoder.finish()]);
    } finally {
      const words = this.words.slice(0, count);
      const scope = device
        .popErrorScope()
        .catch(() => null) // of a lost device, which is told otherwise
        .then(error => {
          this.scopes.delete(scope);
          if (error) {
            this.onfailure(kindOf(error), `${this.namesIn(words)}: ${error.message}`);
          }
        });
      this.scopes.add(scope);
    }
  }

  // encode puts dispatches into one pass as long as no copy or clear comes between them.
  encode(encoder, count) {
    const {words, buffers, pipelines} = this;
    let pass = null;
    let current = 0;
    for (let i = 0; i < count; ) {
      const op = words[i];
      if (op === DISPATCH) {
        if (pass === null) {
          pass = encoder.beginComputePass();
          current = 0;
        }
        const p = words[i + 1];
        if (p !== current) {
          pass.setPipeline(pipelines.get(p).pipeline);
          current = p;
        }
        pass.setBindGroup(0, this.group(i), words, i + 5, 1);
        pass.dispatchWorkgroups(words[i + 2], words[i + 3], words[i + 4]);
        i += 7 + words[i + 6];
        continue;
      }
      pass?.end();
      pass = null;
      if (op === COPY) {
        encoder.copyBufferToBuffer(buffers.get(words[i + 3]).buffer, words[i + 4], buffers.get(words[i + 1]).buffer, words[i + 2], words[i + 5]);
        i += 6;
      } else {
        encoder.clearBuffer(buffers.get(words[i + 1]).buffer, words[i + 2], words[i + 3]);
        i += 4;
      }
    }
    pass?.end();
  }

  // group returns the bind group of the dispatch whose words begin at start.
  group(start) {
    const {words} = this;
    const n = words[start + 6];
    const first = start + 7;
    let hash = words[start + 1];
    for (let i = first; i < first + n; i++) {
      hash = Math.imul(hash ^ words[i], 0x01000193) ^ (hash >>> 15);
    }
    const chain = this.groups.get(hash);
    search: for (let entry = chain; entry; entry = entry.next) {
      const {key} = entry;
      if (key[0] !== words[start + 1] || key.length !== n + 1) {
        continue;
      }
      for (let i = 0; i < n; i++) {
        if (key[i + 1] !== words[first + i]) {
          continue search;
        }
      }
      return entry.group;
    }
    const {name, layout, params} = this.pipelines.get(words[start + 1]);
    const entries = [{binding: 0, resource: {buffer: this.uniform, size: params}}];
    for (let i = 0; i < n; i++) {
      const {buffer, hashes} = this.buffers.get(words[first + i]);
      entries.push({binding: i + 1, resource: {buffer}});
      hashes.add(hash);
    }
    const group = this.device.createBindGroup({label: name, layout, entries});
    this.groups.set(hash, {key: [words[start + 1], ...words.subarray(first, first + n)], group, next: chain});
    this.made++;
    return group;
  }

  dropGroups() {
    this.groups.clear();
    this.made = 0;
    for (const {hashes} of this.buffers.values()) {
      hashes.clear();
    }
  }

  writeParams(size) {
    const {device} = this;
    if (!this.uniform || this.uniform.size < size) {
      this.dropGroups(); // they hold the buffer that is replaced
      let room = 1 << 16;
      while (room < size) {
        room *= 2;
      }
      this.uniform?.destroy();
      this.uniform = device.createBuffer({label: "parameters", size: room, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST});
    }
    device.queue.writeBuffer(this.uniform, 0, this.params, 0, size);
  }

  // namesIn lists the kernels of a list, each once.
  namesIn(words) {
    const names = new Set();
    for (let i = 0; i < words.length; ) {
      if (words[i] === DISPATCH) {
        names.add(this.pipelines.get(words[i + 1]).name);
      }
      i += words[i] === DISPATCH ? 7 + words[i + 6] : words[i] === COPY ? 6 : 4;
    }
    return `list of ${[...names].join(", ") || "copies"}`;
  }

  // wait resolves when all that was submitted is done and its failures are told.
  async wait() {
    await Promise.all([...this.scopes, this.device.queue.onSubmittedWorkDone()]);
  }

  // destroy resolves once the loss of the device, which this brings about, has been told. Nothing is told after it.
  async destroy() {
    this.device.destroy();
    await this.device.lost;
    this.onfailure = () => {};
  }
}

// kindOf is "out-of-memory", "validation" or "internal".
function kindOf(error) {
  const kinds = {GPUOutOfMemoryError: "out-of-memory", RangeError: "out-of-memory", GPUInternalError: "internal"};
  return kinds[error.constructor.name] ?? "validation";
}

globalThis.fromageGPU = {
  version: 1,
  open: device => new Session(device),
};
