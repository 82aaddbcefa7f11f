"""Jobs that run in a prestarted interpreter, and programs to compare it with."""

from pathlib import Path

from support.executor import UIDS, ExecutorProcess, Result

# What a program can see; each is a block of one program.
_FACTS = {
    "process": (
        "console.log(process.argv, process.execArgv, process.argv0, process.title, process.execPath, process.cwd());"
        "console.log(process.ppid, Object.keys(process), process.eventNames(), process.config.variables.napi_build_version)"
    ),
    "module": (
        "console.log(require.main === module, process.mainModule === module, module, __filename, __dirname);"
        "console.log(Object.keys(require.cache), Object.keys(require('module')._pathCache));"
        "console.log(Object.getOwnPropertyDescriptor(require('module'), 'runMain'), process._preload_modules)"
    ),
    "environment": "console.log(process.env, require('os').homedir(), require('os').userInfo().username)",
    "stdin at once": (
        "const fs = require('fs'); console.log(fs.readFileSync(0, 'utf8'), fs.fstatSync(0).mode);"
        "for (const one of ['stdin', 'stdout', 'stderr']) console.log(process[one].constructor.name, process[one].isTTY)"
    ),
    "descriptors": "console.log(require('fs').readdirSync('/proc/self/fd').length)",
    "limits": "console.log(require('fs').readFileSync('/proc/self/limits', 'utf8'))",
    "status": (
        "const text = require('fs').readFileSync('/proc/self/status', 'utf8');"
        "console.log(text.split('\\n').filter((line) => /^(Name|Umask|PPid|Uid|Gid|Sig|Shd|Cap|NoNew|Seccomp)/.test(line)))"
    ),
    "processes": (
        "const pids = require('fs').readdirSync('/proc').filter((name) => /^\\d+$/.test(name)); console.log(pids)"
    ),
    "time zone": "console.log(new Date(0).toString(), Intl.DateTimeFormat().resolvedOptions())",
    "globals": "console.log(Object.getOwnPropertyNames(globalThis).sort(), RegExp.$1, RegExp.input)",
    "traces": (
        "console.log(new Error('x').stack); Error.stackTraceLimit = 100; console.log(new Error('y').stack);"
        "process.nextTick(() => console.log(new Error('z').stack))"
    ),
}
NODE = {
    "what stdin and all else is": "\n".join(f"{{ {text} }}" for text in _FACTS.values()),
    "hello": "console.log('hello')",
    "an error": "function f() { throw new TypeError('zebra') }\nf()",
    "an error later": "setTimeout(() => { throw new Error('zebra') })",
    "a rejection": "Promise.reject(new Error('zebra'))",
    "a syntax error": "let zebra = ;",
    "a missing module": "require('./zebra')",
    "stdin": "process.stdin.on('data', (data) => console.log(String(data))).on('end', () => console.log('end'))",
    "a worker": (
        "const w = require('worker_threads');"
        "if (w.isMainThread) new w.Worker(__filename).on('message', (told) => console.log(told));"
        "else w.parentPort.postMessage([process.execArgv, process.argv, Object.keys(require.cache), new Error('w').stack])"
    ),
    "a fork": (
        "const { fork } = require('child_process');"
        "if (process.argv[2] === 'child') process.send([process.execArgv, process.argv.length]);"
        "else fork(__filename, ['child']).on('message', (told) => console.log(told))"
    ),
    "exit": "process.on('exit', (code) => console.log('bye', code)); process.exitCode = 5",
    "a signal": "process.kill(process.pid, 'SIGTERM'); setTimeout(() => 0, 20000)",
    "much output": "for (let i = 0; i < 2000; i++) console.log('x'.repeat(100)); console.error('end')",
}
NODE_MODULES = {
    "esm": (
        "import fs from 'node:fs'\nimport { value } from './other.mjs'\n"
        "console.log(import.meta.url, process.argv.length, typeof require, await Promise.resolve(value))\n"
        "console.log(new Error('x').stack)"
    ),
    "esm error": "throw new Error('zebra')",
    "esm missing": "import './zebra.mjs'",
}


def waiting(executor: ExecutorProcess, bootstrap: str) -> set[int]:
    """List the host pids of started interpreters that wait or are about to."""
    uids = range(executor.first_uid, executor.first_uid + UIDS)
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if bootstrap.encode() in (folder / "cmdline").read_bytes() and folder.stat().st_uid in uids:
                found.add(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def run_started(executor: ExecutorProcess, bootstrap: str, *job: object, **options: object) -> Result:
    """Run a job repeatedly until a waiting interpreter ran it."""
    for _ in range(200):
        before = waiting(executor, bootstrap)
        result = executor.run_job(*job, **options)  # type: ignore[arg-type]
        if before - waiting(executor, bootstrap):
            return result
    raise AssertionError("no started interpreter took the job")
