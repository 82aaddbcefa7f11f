// Numbers and verdicts in words that a person understands.

const SIGNALS = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL, an illegal instruction", 5: "SIGTRAP", 6: "SIGABRT, the program aborted",
  7: "SIGBUS, a bad memory access", 8: "SIGFPE, an arithmetic error", 9: "SIGKILL", 11: "SIGSEGV, an invalid memory access",
  13: "SIGPIPE, a broken pipe", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU, too much CPU time",
  25: "SIGXFSZ, too large a file", 31: "SIGSYS, a blocked system call",
};

/** Bytes, in the unit that makes them short: 1536 is "1.5 KB". */
export function size(bytes) {
  const units = ["bytes", "KB", "MB", "GB"];
  let index = 0;
  let value = bytes;
  while (value >= 1024 && index < units.length - 1) { value /= 1024; index += 1; }
  if (index === 0) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  return `${value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${units[index]}`;
}

/** Seconds: "4 ms", "2.5 s", "12 s", "5 min", "1 h 20 min". */
export function duration(seconds) {
  if (seconds > 0 && seconds < 0.001) return "less than 1 ms";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(2))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** How far a transfer is after `seconds`: "12 MB of 40 MB, about 9 s left". */
export function transferred(sent, total, seconds) {
  const isGuess = seconds >= 2 && sent > 0 && sent < total; // before, nobody can tell
  const left = isGuess ? `, about ${duration(Math.ceil((seconds * (total - sent)) / sent))} left` : "";
  return `${size(sent)} of ${size(total)}${left}`;
}

/** When something is, that many seconds from now: "14:05 (in 1 h)"; with the day, if that is another one. */
export function clock(seconds, now = new Date()) {
  const then = new Date(now.getTime() + 1000 * seconds);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(seconds < 120 && { second: "2-digit" }) });
  const day = then.toDateString() === now.toDateString() ? "" : `${then.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" })}, `;
  return `${day}${time} (in ${duration(seconds)})`;
}

/** What is said of output that the server did not keep; "" when it kept all. `logs` is an answer of /logs. */
export function missing({ truncated, stdout_bytes: stdout, stderr_bytes: stderr, next_offset: kept }) {
  if (!truncated) return "";
  const left = stdout + stderr - kept;
  const what = left > 0 ? `${size(left)} of the output are missing` : "Part of the output is missing";
  return `${what}: the server keeps the first ${size(kept)} of what a program prints.`;
}

/** A number of things: "1 file", "2 files". */
export function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

/** How a job ended: { good, text } for its status. */
export function verdict(status) {
  const { limits = {}, detail } = status;
  const because = detail ? `: ${detail}` : "";
  const texts = {
    ok: "Finished.",
    nonzero_exit: `Failed with exit code ${status.exit_code}.`,
    signaled: `Killed by signal ${status.signal}${SIGNALS[status.signal] ? ` (${SIGNALS[status.signal]})` : ""}.`,
    wall_time_limit: `Time limit reached: ${duration(limits.timeout ?? 0)}.`,
    cpu_time_limit: `CPU time limit reached: ${duration(limits.cpu_seconds ?? 0)}.`,
    memory_limit: `Memory limit reached: ${limits.memory_mb} MB.`,
    output_limit: `Output limit reached: ${limits.log_mb} MB.`,
    disk_limit: `Disk limit reached: ${limits.disk_mb} MB.`,
    compile_error: "Compilation failed; see the output.",
    setup_error: `Could not be started${because}.`,
    cancelled: "Cancelled.",
    executor_lost: "The server lost this job while it ran. Run it again.",
    internal_error: `Something went wrong inside Sandrun${because}. Run it again.`,
  };
  return { good: status.verdict === "ok", text: texts[status.verdict] ?? `Ended: ${status.verdict}.` };
}
