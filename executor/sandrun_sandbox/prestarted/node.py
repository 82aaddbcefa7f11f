"""Bootstraps that a started interpreter runs while it waits for its job; they are files of the image.

Descriptor 3 is a socket to the sandbox's helper (helper.py). The bootstrap sends `r`, and receives a length
in 12 digits and that number of bytes, all NUL-terminated: the helper's process id, `n` if there is no input,
the entrypoint, and two counted lists, arguments and variables. It takes over the helper's standard streams,
sends `k`, and waits until the helper has exited before any code of the job runs.
"""

from __future__ import annotations

FOLDER = "/etc/sandrun"  # in the image

# Node calls `Module.runMain(file)` for its main file, a place meant for preloaded modules to change
# (lib/internal/main/run_main_module.js). Here a getter returns node's own function, bound to the job's file.
# A bound function adds no frame, so every stack trace looks like that of a plain start.
NODE = r"""'use strict'
const fs = require('fs')
const path = require('path')
const Module = require('module')
const { isMainThread } = require('worker_threads')

process.execArgv = []
process._preload_modules.length = 0
delete require.cache[__filename]
for (const key of Object.keys(Module._pathCache)) if (key.includes(__filename)) delete Module._pathCache[key]

// Workers are given the preloaded modules of the process that makes them.
if (isMainThread) {
  const read = (size) => {
    const data = Buffer.alloc(size)
    for (let done = 0; done < size;) {
      const count = fs.readSync(3, data, done, size - done)
      if (count === 0) process.reallyExit(1)
      done += count
    }
    return data
  }
  fs.writeSync(3, 'r')
  const fields = read(Number(read(12))).toString().split('\0')
  const take = () => fields.splice(0, 1 + Number(fields[0])).slice(1)
  const [helper, input, entrypoint] = fields.splice(0, 3)
  const words = take()
  for (const setting of take()) {
    const end = setting.indexOf('=')
    process.env[setting.slice(0, end)] = setting.slice(end + 1)
  }
  const streams = ['/dev/null', 1, 2]
  if (input !== 'n') streams[0] = 0
  for (const [fd, from] of streams.entries()) {
    fs.closeSync(fd)
    const name = typeof from === 'number' ? `/proc/${helper}/fd/${from}` : from
    if (fs.openSync(name, fd === 0 ? 'r' : 'w') !== fd) process.reallyExit(1)
  }
  fs.writeSync(3, 'k')
  while (fs.readSync(3, Buffer.alloc(1)) !== 0);
  fs.closeSync(3)
  while (fs.existsSync(`/proc/${helper}`)); // PID 1 is about to reap it
  const main = path.resolve(entrypoint)
  process.argv.splice(1, process.argv.length, main, ...words)
  const runMain = Module.runMain
  const put = (property) =>
    Object.defineProperty(Module, 'runMain', { enumerable: true, configurable: true, ...property })
  put({
    get () {
      put({ value: runMain, writable: true })
      return runMain.bind(Module, main)
    }
  })
}
"""
FILES = {"node.cjs": NODE}
# The command that starts it; the file named last does not exist and is never read.
COMMANDS = {"node": ("/usr/bin/node", "-r", f"{FOLDER}/node.cjs", "/")}
