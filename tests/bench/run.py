"""Measure Sandrun against bare processes: sudo .venv/bin/python tests/bench/run.py [--quick]."""

import argparse
import datetime
import json
import os
import signal
import sys
from pathlib import Path

import crowd
import live
import measures
import memory
import recovery
import report
import request_latency
from clients import PROGRAMS, WHOLE, subjects
from stack import Stack, StackError

ROUNDS = 20
PARTS = ("latency", "throughput", "logs", "requests", "memory", "growth", "recovery", "crowd")
SUBSCRIBERS = (1, 8)
SLOTS = 8
MANY_JOBS = 2000
ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".venv" / "environments"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of latency ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="a few rounds of everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--parked", type=int, help="sandboxes kept ready (the setting's default)")
    parser.add_argument(
        "--more-jobs",
        type=int,
        default=MANY_JOBS,
        help=f"after the first {MANY_JOBS}, until memory is read again ({MANY_JOBS})",
    )
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help=f"where they are built ({ENVIRONMENTS})"
    )
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--subject", action="append", help="only these, e.g. run; bare always")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure and print; 1 if Sandrun could not be started."""
    options = parse(arguments)
    if os.geteuid() != 0:
        print("run this as root: it starts an executor", file=sys.stderr)
        return 1
    # A time limit of the caller ends the daemons too, in their order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds = 4 if options.quick else options.rounds
    parts = options.only or PARTS
    try:
        with Stack(SLOTS, options.parked, options.environments) as stack:
            chosen = [
                subject
                for subject in subjects(stack.socket, stack.port, options.environments)
                if not options.subject or subject.kind in ("bare", *options.subject)
            ]
            samples = measures.latencies(chosen, rounds if "latency" in parts else 1)
            rates: measures.Rates = {}
            if "throughput" in parts:
                simple = [
                    subject for subject in chosen if subject.program in PROGRAMS and subject.kind not in WHOLE
                ]
                rates = measures.throughputs(simple, max(1, rounds // 4), 0.5 if options.quick else 1.0)
            logs: dict[str, list[float]] = {}
            for count in SUBSCRIBERS if "logs" in parts else ():
                name = f"{count} subscriber" + "s" * (count > 1)
                for _ in range(max(1, rounds // 4)):
                    logs.setdefault(name, []).extend(live.latencies(stack.port, count))
            asked: dict[str, list[float]] = {}
            if "requests" in parts:
                asked = request_latency.latencies(stack.port, 3 if options.quick else 20)
            sizes: dict[str, float] = {}
            if "memory" in parts:
                sizes = memory.measure(stack.pid("executor"), stack.pid("api"), stack.socket, SLOTS)
            if "growth" in parts:
                counts = (200, 200) if options.quick else (MANY_JOBS, options.more_jobs)
                sizes |= memory.growth(stack.pid("api"), stack.port, counts)
            back: dict[str, list[float]] = {}
            if "recovery" in parts:
                back = recovery.seconds(stack, 2 if options.quick else 10)
        levels: dict[int, crowd.Level] = {}
        if "crowd" in parts:
            with Stack(max(crowd.COUNTS) + 1, options.parked) as stack:
                levels = crowd.levels(stack.pid("executor"), stack.socket, 8 if options.quick else 30)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    summary = report.summary(samples, rates, sizes, logs, asked, back, levels)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    result = {"date": date, "machine": report.machine(), "rounds": rounds, **summary}
    print(json.dumps(result["machine"]))
    print(report.table(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
