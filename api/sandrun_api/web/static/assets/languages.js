// The languages the page knows more of than their name: how people call them, their files, a first program.

const KNOWN = {
  python3: {
    title: "Python", file: "main.py", extensions: ["py"],
    sample: 'import sys\n\nprint("Hello from Python", sys.version.split()[0])\n\nfor name in sys.argv[1:]:\n    print("Hello,", name)\n',
  },
  node: {
    title: "JavaScript (Node)", file: "main.js", extensions: ["js", "mjs", "cjs"],
    sample:
      'console.log("Hello from Node", process.version);\n\n' +
      'for (const name of process.argv.slice(2)) {\n  console.log("Hello,", name);\n}\n',
  },
  bash: {
    title: "Bash", file: "main.sh", extensions: ["sh", "bash"],
    sample: 'echo "Hello from Bash $BASH_VERSION"\n\nfor name in "$@"; do\n    echo "Hello, $name"\ndone\n',
  },
  sh: {
    title: "Shell (sh)", file: "main.sh", extensions: [],
    sample:
      'echo "Hello from the shell"\n\n' +
      'for name in "$@"; do\n    echo "Hello, $name"\ndone\n',
  },
  ruby: {
    title: "Ruby", file: "main.rb", extensions: ["rb"],
    sample:
      'puts "Hello from Ruby #{RUBY_VERSION}"\n\n' +
      'ARGV.each { |name| puts "Hello, #{name}" }\n',
  },
  Rscript: {
    title: "R", file: "main.R", extensions: ["R", "r"],
    sample: 'cat("Hello from", R.version.string, "\\n")\n\nfor (name in commandArgs(trailingOnly = TRUE)) cat("Hello,", name, "\\n")\n',
  },
  perl: {
    title: "Perl", file: "main.pl", extensions: ["pl"],
    sample:
      'use v5.30;\n\n' +
      'say "Hello from Perl $^V";\nsay "Hello, $_" for @ARGV;\n',
  },
  php: {
    title: "PHP", file: "main.php", extensions: ["php"],
    sample:
      '<?php\necho "Hello from PHP ", PHP_VERSION, "\\n";\n\n' +
      'foreach (array_slice($argv, 1) as $name) {\n    echo "Hello, $name\\n";\n}\n',
  },
  c: {
    title: "C", file: "main.c", extensions: ["c", "h"],
    sample:
      '#include <stdio.h>\n\nint main(int argc, char **argv)\n{\n    printf("Hello from C, standard %ld\\n", __STDC_VERSION__);\n' +
      '    for (int i = 1; i < argc; i++)\n        printf("Hello, %s\\n", argv[i]);\n}\n',
  },
  cpp: {
    title: "C++", file: "main.cpp", extensions: ["cpp", "cc", "cxx", "hpp"],
    sample:
      '#include <iostream>\n\nint main(int argc, char **argv)\n{\n    std::cout << "Hello from C++, standard " << __cplusplus << "\\n";\n' +
      '    for (int i = 1; i < argc; i++)\n        std::cout << "Hello, " << argv[i] << "\\n";\n}\n',
  },
  go: {
    title: "Go", file: "main.go", extensions: ["go"],
    sample:
      'package main\n\nimport (\n\t"fmt"\n\t"os"\n\t"runtime"\n)\n\nfunc main() {\n\tfmt.Println("Hello from", runtime.Version())\n' +
      '\tfor _, name := range os.Args[1:] {\n\t\tfmt.Println("Hello,", name)\n\t}\n}\n',
  },
  rust: {
    title: "Rust", file: "main.rs", extensions: ["rs"],
    sample:
      'fn main() {\n    println!("Hello from Rust");\n' +
      '    for name in std::env::args().skip(1) {\n        println!("Hello, {name}");\n    }\n}\n',
  },
};

/** Whether programs of it are written: an uploaded machine program is not. */
export function isWritten(interpreter) {
  return interpreter !== "executable";
}

/** What is known of an interpreter; one that is not known has its own name and no first program. */
export function language(interpreter) {
  return KNOWN[interpreter] ?? { title: interpreter, file: "main", extensions: [], sample: "" };
}

/** The interpreter for a file of that name, or null. */
export function interpreterOf(path) {
  const extension = /\.([^./]+)$/.exec(path)?.[1];
  return Object.keys(KNOWN).find((name) => KNOWN[name].extensions.includes(extension)) ?? null;
}

/** Whether a program is one of those the page begins with. */
export function isSample(code) {
  return Object.values(KNOWN).some(({ sample }) => sample === code);
}
