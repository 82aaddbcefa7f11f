// Programs to begin with, each of which shows one thing that can be done here.

const PLOT = `import math

# Files that a program leaves are shown below its output.
points = [(x, 120 - 90 * math.sin(x / 40) * math.exp(-x / 300)) for x in range(0, 601, 4)]
path = " ".join(f"{x},{y:.1f}" for x, y in points)

with open("wave.svg", "w") as file:
    file.write(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 240" width="600" height="240">'
        '<rect width="600" height="240" fill="#f6f8f7"/><path d="M0 120H600" stroke="#9aa5a3"/>'
        f'<polyline points="{path}" fill="none" stroke="#0b6e6a" stroke-width="3"/></svg>'
    )
print("wrote wave.svg with", len(points), "points")
`;
const MATPLOTLIB = `import matplotlib.pyplot as plt
import numpy as np

x = np.linspace(0, 4 * np.pi, 400)
plt.plot(x, np.sin(x) * np.exp(-x / 8), label="damped")
plt.plot(x, np.cos(x), label="cosine", alpha=0.6)
plt.legend()

# Images that a program saves are shown below its output.
plt.savefig("waves.png", dpi=120)
print("wrote waves.png")
`;
const INPUT = `import sys

# Standard input is under "Arguments and input".
numbers = [float(line) for line in sys.stdin if line.strip()]
print(f"{len(numbers)} numbers, sum {sum(numbers):g}, mean {sum(numbers) / len(numbers):g}")
`;
const ERROR = `def mean(values):
    return sum(values) / len(values)


print(mean([1, 2, 3]))
print(mean([]))  # the traceback and the exit code are shown
`;
const PROGRESS = `import time

for percent in range(0, 101, 5):
    print(f"\\r\\x1b[32m{'█' * (percent // 5):<20}\\x1b[0m {percent} %", end="")
    time.sleep(0.05)
print("\\n\\x1b[1mdone\\x1b[0m")
`;
const WORDS = `const text = "the quick brown fox jumps over the lazy dog and the cat";

const counts = new Map();
for (const word of text.split(" ")) counts.set(word, (counts.get(word) ?? 0) + 1);
console.table([...counts].filter(([, count]) => count > 1));
`;
const PIPELINE = `# Tables (CSV) are shown, too.
printf '%s\\n' "fruit,kg" apples,12 pears,7 plums,31 > harvest.csv

tail -n +2 harvest.csv | sort -t, -k2 -n -r | head -n 1
`;
const PRIMES = `#include <stdbool.h>
#include <stdio.h>

int main(void)
{
    static bool composite[1000001];
    int count = 0;
    for (int i = 2; i <= 1000000; i++) {
        if (composite[i]) continue;
        count++;
        for (long j = (long)i * i; j <= 1000000; j += i) composite[j] = true;
    }
    printf("%d primes up to 1000000\\n", count);
}
`;

// `needs` is a package: the example is offered where an environment has it.
export const EXAMPLES = [
  { title: "Python: a plot, saved as an image", language: "python3", code: PLOT },
  { title: "Python: a plot with matplotlib", language: "python3", code: MATPLOTLIB, needs: "matplotlib" },
  { title: "Python: read standard input", language: "python3", code: INPUT, stdin: "12\n30.5\n7\n" },
  { title: "Python: an error", language: "python3", code: ERROR },
  { title: "Python: progress and colours", language: "python3", code: PROGRESS },
  { title: "JavaScript: count words", language: "node", code: WORDS },
  { title: "Bash: a pipeline and a table", language: "bash", code: PIPELINE },
  { title: "C: count primes", language: "c", code: PRIMES },
];

/** The fields of an example, as a link has them; `environment` is the one with what it needs. */
export function fieldsOf({ language, code, stdin }, environment = "default") {
  return { language, code, environment, ...(stdin && { stdin }) };
}
