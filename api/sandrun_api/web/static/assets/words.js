// Numbers and verdicts in words that a person understands.

const SIGNALS = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL, an illegal instruction", 5: "SIGTRAP", 6: "SIGABRT, it gave up itself",
  7: "SIGBUS, a bad memory access", 8: "SIGFPE, impossible arithmetic", 9: "SIGKILL", 11: "SIGSEGV, an invalid memory access",
  13: "SIGPIPE, nobody read what it wrote", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU, too much CPU time",
  25: "SIGXFSZ, too large a file", 31: "SIGSYS, a forbidden system call",
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

/** Seconds: "0.03 s", "12 s", "5 min", "1 h 20 min". */
export function duration(seconds) {
  if (seconds < 10) return `${Number(seconds.toFixed(2))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** How far a transfer is that took so many seconds: "12 MB of 40 MB, about 9 s left". */
export function transferred(sent, total, seconds) {
  const isGuess = seconds >= 2 && sent > 0 && sent < total; // before, nobody can tell
  const left = isGuess ? `, about ${duration(Math.ceil((seconds * (total - sent)) / sent))} left` : "";
  return `${size(sent)} of ${size(total)}${left}`;
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
    nonzero_exit: `Ended with exit code ${status.exit_code}.`,
    signaled: `Was ended by signal ${status.signal}${SIGNALS[status.signal] ? ` (${SIGNALS[status.signal]})` : ""}.`,
    wall_time_limit: `Ran out of time: ${duration(limits.timeout ?? 0)}.`,
    cpu_time_limit: `Used up its CPU time: ${duration(limits.cpu_seconds ?? 0)}.`,
    memory_limit: `Ran out of memory: ${limits.memory_mb} MB.`,
    output_limit: `Printed too much: more than ${limits.log_mb} MB.`,
    disk_limit: `Ran out of disk space: ${limits.disk_mb} MB.`,
    compile_error: "Did not compile; the output says why.",
    setup_error: `Could not be started${because}.`,
    cancelled: "Cancelled.",
    executor_lost: "The server lost this job while it ran. Please run it again.",
    internal_error: `Something went wrong inside Sandrun${because}. Please run it again.`,
  };
  return { good: status.verdict === "ok", text: texts[status.verdict] ?? `Ended: ${status.verdict}.` };
}
