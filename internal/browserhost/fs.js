// SPDX-License-Identifier: Apache-2.0

// The file system and process that Go's syscall package looks for in globalThis: the host's files, whose contents are fetched when they are
// opened, and over them a file system in memory that takes all writes.

const O = {O_WRONLY: 1, O_RDWR: 2, O_CREAT: 0o100, O_EXCL: 0o200, O_TRUNC: 0o1000, O_APPEND: 0o2000, O_DIRECTORY: 0o200000};

const fail = (code, path = "") => Object.assign(new Error(`${code} ${path}`), {code});

let inodes = 0;
const newNode = fields => ({ino: ++inodes, mtime: Date.now(), ...fields});
const newDir = () => newNode({children: new Map()});
const newFile = () => newNode({data: new Uint8Array(0), size: 0});

function stat(node) {
  const isDir = Boolean(node.children);
  return {
    dev: 1, ino: node.ino, mode: isDir ? 0o40755 : 0o100644, nlink: 1, uid: 0, gid: 0, rdev: 0, size: node.size ?? 0, blksize: 4096,
    blocks: Math.ceil((node.size ?? 0) / 512), atimeMs: node.mtime, mtimeMs: node.mtime, ctimeMs: node.mtime, isDirectory: () => isDir,
  };
}

function resize(node, size) {
  if (size > node.data.length) {
    const grown = new Uint8Array(Math.max(size, 2 * node.data.length));
    grown.set(node.data.subarray(0, node.size));
    node.data = grown;
  }
  node.data.fill(0, Math.min(size, node.size), Math.max(size, node.size));
  node.size = size;
  node.mtime = Date.now();
}

// Tree finds nodes by path.
class Tree {
  root = newDir();

  constructor(cwd) {
    this.cwd = cwd;
  }

  // names is the way from the root to path.
  names(path) {
    const names = [];
    for (const name of (path.startsWith("/") ? path : `${this.cwd}/${path}`).split("/")) {
      if (name === "..") {
        names.pop();
      } else if (name !== "" && name !== ".") {
        names.push(name);
      }
    }
    return names;
  }

  walk(names, path) {
    let node = this.root;
    for (const name of names) {
      if (!node.children) {
        throw fail("ENOTDIR", path);
      }
      node = node.children.get(name);
      if (!node) {
        throw fail("ENOENT", path);
      }
    }
    return node;
  }

  find(path) {
    return this.walk(this.names(path), path);
  }

  // parent returns the folder of path, path's last name and the node there, if any.
  parent(path) {
    const names = this.names(path);
    const name = names.pop();
    if (name === undefined) {
      throw fail("EBUSY", path);
    }
    const dir = this.walk(names, path);
    if (!dir.children) {
      throw fail("ENOTDIR", path);
    }
    return {dir, name, node: dir.children.get(name)};
  }

  // add puts a node at path, with the folders on the way to it.
  add(path, node) {
    const names = this.names(path);
    const name = names.pop();
    let dir = this.root;
    for (const n of names) {
      if (!dir.children.has(n)) {
        dir.children.set(n, newDir());
      }
      dir = dir.children.get(n);
    }
    if (!dir.children.has(name)) {
      dir.children.set(name, node);
    }
  }
}

async function load(node) {
  if (node.url && !node.data) {
    const response = await fetch(node.url);
    if (!response.ok) {
      throw fail("EIO", node.url);
    }
    node.data = new Uint8Array(await response.arrayBuffer());
    node.size = node.data.length;
  }
}

// calls returns the functions of node's fs that Go calls, without their callbacks; each returns, or resolves to, its result.
function calls(tree, output) {
  const open = new Map(); // by descriptor: {node, flags, position}
  let next = 3;
  const get = fd => open.get(fd) ?? (() => { throw fail("EBADF"); })();
  const touch = path => void tree.find(path);
  return {
    async open(path, flags) {
      const {dir, name, node: found} = tree.names(path).length ? tree.parent(path) : {node: tree.root};
      let node = found;
      const writes = flags & (O.O_WRONLY | O.O_RDWR);
      if (node && flags & O.O_CREAT && flags & O.O_EXCL) {
        throw fail("EEXIST", path);
      }
      if (!node && !(flags & O.O_CREAT)) {
        throw fail("ENOENT", path);
      }
      if (node?.children && writes) {
        throw fail("EISDIR", path);
      }
      if (node && !node.children && flags & O.O_DIRECTORY) {
        throw fail("ENOTDIR", path);
      }
      if (!node) {
        node = newFile();
        dir.children.set(name, node);
      }
      await load(node);
      if (writes && flags & O.O_TRUNC) {
        resize(node, 0);
      }
      open.set(next, {node, flags, position: 0});
      return next++;
    },
    close(fd) {
      get(fd);
      open.delete(fd);
    },
    read(fd, buffer, offset, length, position) {
      const file = get(fd);
      if (file.node.children) {
        throw fail("EISDIR");
      }
      const from = position ?? file.position;
      const part = file.node.data.subarray(Math.min(from, file.node.size), Math.min(from + length, file.node.size));
      buffer.set(part, offset);
      if (position === null) {
        file.position += part.length;
      }
      return part.length;
    },
    write(fd, buffer, offset, length, position) {
      const part = buffer.subarray(offset, offset + length);
      if (fd === 1 || fd === 2) {
        output(fd, part.slice());
        return length;
      }
      const file = get(fd);
      if (!(file.flags & (O.O_WRONLY | O.O_RDWR))) {
        throw fail("EBADF");
      }
      const at = file.flags & O.O_APPEND ? file.node.size : (position ?? file.position);
      resize(file.node, Math.max(file.node.size, at + length));
      file.node.data.set(part, at);
      if (position === null) {
        file.position = at + length;
      }
      return length;
    },
    fstat: fd => stat(get(fd).node),
    stat: path => stat(tree.find(path)),
    lstat: path => stat(tree.find(path)),
    readdir: path => [...(tree.find(path).children ?? (() => { throw fail("ENOTDIR", path); })()).keys()],
    mkdir(path) {
      const {dir, name, node} = tree.parent(path);
      if (node) {
        throw fail("EEXIST", path);
      }
      dir.children.set(name, newDir());
    },
    unlink(path) {
      const {dir, name, node} = tree.parent(path);
      if (!node || node.children) {
        throw fail(node ? "EISDIR" : "ENOENT", path);
      }
      dir.children.delete(name);
    },
    rmdir(path) {
      const {dir, name, node} = tree.parent(path);
      if (!node?.children || node.children.size > 0) {
        throw fail(!node ? "ENOENT" : node.children ? "ENOTEMPTY" : "ENOTDIR", path);
      }
      dir.children.delete(name);
    },
    rename(from, to) {
      const source = tree.parent(from);
      const target = tree.parent(to);
      if (!source.node) {
        throw fail("ENOENT", from);
      }
      if (target.node?.children) {
        throw fail("EEXIST", to);
      }
      source.dir.children.delete(source.name);
      target.dir.children.set(target.name, source.node);
    },
    async truncate(path, size) {
      const node = tree.find(path);
      await load(node);
      resize(node, size);
    },
    ftruncate: (fd, size) => resize(get(fd).node, size),
    fsync: fd => void get(fd),
    chmod: touch,
    chown: touch,
    lchown: touch,
    utimes: touch,
    fchmod: fd => void get(fd),
    fchown: fd => void get(fd),
    readlink: path => { throw fail(tree.find(path) && "EINVAL", path); },
    link: (_, path) => { throw fail("ENOSYS", path); },
    symlink: (_, path) => { throw fail("ENOSYS", path); },
  };
}

// mount sets globalThis.fs, process and path. files are the host's below root, as {path, size, mtime} with size -1 for folders; output takes the
// bytes that are written to descriptors 1 and 2.
export function mount({root, cwd, env, files}, output) {
  const tree = new Tree(cwd);
  tree.add(env.TMPDIR ?? "/tmp", newDir());
  tree.add(cwd, newDir());
  for (const {path, size, mtime} of files) {
    const node = size < 0 ? newDir() : newNode({size, mtime, url: `/file?path=${encodeURIComponent(path)}`});
    tree.add(`${root}/${path}`, node);
  }
  globalThis.fs = {
    constants: O,
    writeSync: (fd, bytes) => (output(fd, bytes.slice()), bytes.length),
  };
  for (const [name, call] of Object.entries(calls(tree, output))) {
    globalThis.fs[name] = (...args) => {
      const callback = args.pop();
      const refuse = error => callback(error.code ? error : fail("EIO", String(error)));
      let result;
      try {
        result = call(...args);
      } catch (error) {
        refuse(error);
        return;
      }
      if (result instanceof Promise) {
        result.then(r => callback(null, r), refuse);
      } else {
        callback(null, result);
      }
    };
  }
  globalThis.process = {
    pid: 1, ppid: 0, getuid: () => 0, getgid: () => 0, geteuid: () => 0, getegid: () => 0, getgroups: () => [], umask: () => 0o22,
    cwd: () => tree.cwd,
    chdir: path => {
      if (!tree.find(path).children) {
        throw fail("ENOTDIR", path);
      }
      tree.cwd = `/${tree.names(path).join("/")}`;
    },
  };
  globalThis.path = {resolve: (...parts) => `/${tree.names(parts.join("/")).join("/")}`};
}
