"""Programs that do the same in every language."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from sandrun_shared.languages import BY_NAME

FLOOD_BYTES = 64 << 20


@dataclass(frozen=True)
class Programs:
    """One language's programs.

    report prints its first argument, $MINE and its input, `warn` on stderr, and exits with 7; error ends by
    an uncaught error that names `zebra`; files writes data.txt in capitals to out.txt; flood prints
    FLOOD_BYTES; the rest run into a limit.
    """

    hello: str
    report: str
    error: str
    files: str
    flood: str
    sleep: str
    spin: str
    memory: str
    disk: str
    main: str = "main"


PROGRAMS = {
    "python3": Programs(
        hello="print('hello')",
        report=(
            "import os, sys\nprint(sys.argv[1], os.environ['MINE'], sys.stdin.read(), sep='|')\n"
            "print('warn', file=sys.stderr)\nsys.exit(7)"
        ),
        error="def f():\n    raise ValueError('zebra')\nf()",
        files="open('out.txt', 'w').write(open('data.txt').read().upper())",
        flood="for _ in range(64): print('x' * (1 << 20), end='')",
        sleep="import time; time.sleep(60)",
        spin="while True: pass",
        memory="x = b'x' * (1 << 30)",
        disk="open('big', 'wb').write(bytes(8 << 20))",
    ),
    "node": Programs(
        hello="console.log('hello')",
        report=(
            "const given = require('fs').readFileSync(0, 'utf8');"
            "console.log([process.argv[2], process.env.MINE, given].join('|'));"
            "console.error('warn'); process.exitCode = 7"
        ),
        error="function f() { throw new Error('zebra') }\nf()",
        files="const fs = require('fs'); fs.writeFileSync('out.txt', fs.readFileSync('data.txt', 'utf8').toUpperCase())",
        flood="const fs = require('fs'); for (let i = 0; i < 64; i++) fs.writeSync(1, 'x'.repeat(1 << 20))",
        sleep="setTimeout(() => 0, 60000)",
        spin="for (;;);",
        memory="const x = Buffer.alloc(1 << 30, 'x')",
        disk="require('fs').writeFileSync('big', Buffer.alloc(8 << 20))",
    ),
    "bash": Programs(
        hello="echo hello",
        report='echo "$1|$MINE|$(cat)"; echo warn >&2; exit 7',
        error="set -eu\nf() { echo $zebra; }\nf",
        files="tr a-z A-Z <data.txt >out.txt",
        flood=f"yes | head -c {FLOOD_BYTES}",
        sleep="exec sleep 60",
        spin="while :; do :; done",
        memory="x=$(head -c 1G /dev/zero | tr '\\0' x)",
        disk="head -c 8M /dev/zero >big",
    ),
    "ruby": Programs(
        hello="puts 'hello'",
        report="puts [ARGV[0], ENV['MINE'], $stdin.read].join('|'); warn 'warn'; exit 7",
        error="def f = raise('zebra')\nf",
        files="File.write('out.txt', File.read('data.txt').upcase)",
        flood="64.times { print 'x' * (1 << 20) }",
        sleep="sleep 60",
        spin="loop {}",
        memory="x = 'x' * (1 << 30)",
        disk="File.write('big', 'x' * (8 << 20))",
    ),
    "Rscript": Programs(
        hello="cat('hello\\n')",
        report=(
            "given <- readLines(file('stdin'), warn = FALSE)\n"
            "cat(paste(commandArgs(TRUE)[1], Sys.getenv('MINE'), given, sep = '|'), '\\n', sep = '')\n"
            "message('warn')\nquit(status = 7)"
        ),
        error="f <- function() stop('zebra')\nf()",
        files="writeLines(toupper(readLines('data.txt')), 'out.txt')",
        flood="x <- strrep('x', 2^20)\nfor (i in 1:64) cat(x)",
        sleep="Sys.sleep(60)",
        spin="while (TRUE) {}",
        memory="x <- numeric(2^27) + 1",
        disk="options(warn = 2)\ntarget <- file('big', 'wb')\nfor (i in 1:8) writeBin(raw(2^20), target)\nclose(target)",
    ),
    "perl": Programs(
        hello="print qq(hello\\n);",
        report="print join('|', $ARGV[0], $ENV{MINE}, <STDIN>), qq(\\n); print STDERR qq(warn\\n); exit 7",
        error="sub f { die 'zebra' }\nf();",
        files="open(I, 'data.txt'); open(O, '>out.txt'); print O uc while <I>;",
        flood="print 'x' x (1 << 20) for 1..64;",
        sleep="sleep 60",
        spin="1 while 1;",
        memory="my $n = 1 << 30; my $x = 'x' x $n;",
        disk="open(O, '>big'); print O 'x' x (8 << 20) or die; close O or die",
    ),
    "php": Programs(
        hello='<?php echo "hello\\n";',
        report=(
            "<?php echo implode('|', [$argv[1], getenv('MINE'), stream_get_contents(STDIN)]), \"\\n\";"
            'fwrite(STDERR, "warn\\n"); exit(7);'
        ),
        error="<?php\nfunction f() { throw new Exception('zebra'); }\nf();",
        files="<?php file_put_contents('out.txt', strtoupper(file_get_contents('data.txt')));",
        flood="<?php for ($i = 0; $i < 64; $i++) echo str_repeat('x', 1 << 20);",
        sleep="<?php sleep(60);",
        spin="<?php while (true);",
        memory="<?php $x = str_repeat('x', 1 << 30);",
        disk="<?php $f = fopen('big', 'w'); exit(fwrite($f, str_repeat('x', 8 << 20)) === 8 << 20 ? 0 : 1);",
    ),
    "c": Programs(
        hello='#include <stdio.h>\nint main(void) { puts("hello"); }',
        report=(
            "#include <stdio.h>\n#include <stdlib.h>\n"
            "int main(int count, char **words) {\n"
            '    char given[100] = ""; fgets(given, sizeof given, stdin);\n'
            '    printf("%s|%s|%s\\n", words[1], getenv("MINE"), given);\n'
            '    fputs("warn\\n", stderr); return 7; }'
        ),
        error='#include <stdio.h>\n#include <stdlib.h>\nint main(void) { fputs("zebra\\n", stderr); abort(); }',
        files=(
            '#include <ctype.h>\n#include <stdio.h>\nint main(void) {\n    FILE *in = fopen("data.txt", "r"), '
            '*out = fopen("out.txt", "w");\n    for (int c; (c = getc(in)) != EOF;) putc(toupper(c), out); }'
        ),
        flood=(
            "#include <stdio.h>\n#include <string.h>\nstatic char x[1 << 20];\n"
            "int main(void) { memset(x, 'x', sizeof x); for (int i = 0; i < 64; i++) fwrite(x, 1, sizeof x, stdout); }"
        ),
        sleep="#include <unistd.h>\nint main(void) { sleep(60); }",
        spin="int main(void) { for (volatile int i = 0;; i++); }",
        memory=(
            "#include <stdlib.h>\n#include <string.h>\n"
            "int main(void) { char *volatile x = malloc(1 << 30); memset(x, 'x', 1 << 30); return x[5] != 'x'; }"
        ),
        disk=(
            "#include <stdio.h>\nstatic char x[8 << 20];\n"
            'int main(void) { return fwrite(x, 1, sizeof x, fopen("big", "w")) != sizeof x; }'
        ),
        main="main.c",
    ),
}
PROGRAMS["sh"] = PROGRAMS["bash"]

# What exec and compilers add, where it is not what PROGRAMS shows already.
HELLO = {name: (programs.hello, programs.main) for name, programs in PROGRAMS.items()} | {
    "cpp": ('#include <iostream>\nint main() { std::cout << "hello" << std::endl; }', "main.cc"),
    "go": ('package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n', "main.go"),
    "rust": ('fn main() { println!("hello"); }', "main.rs"),
}
OPTIONAL = ("go", "rust")  # compilers that deploy/languages.txt leaves to the operator


def installed(names: Iterable[str]) -> list[str]:
    """Select the languages that are installed; those that are not optional must be."""
    return sorted(name for name in names if name not in OPTIONAL or os.path.exists(BY_NAME[name].needs))
