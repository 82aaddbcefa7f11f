// Packages to install: the file that names them, made from what a person wrote.

const FILES = { node: "package.json", ruby: "Gemfile" };
const DEPENDENCY = /^((?:@[^@/\s]+\/)?[^@/\s]+)(?:@(\S+))?$/;
const LISTS = /(?:^|\/)(?:package\.json|Gemfile|[^/]*requirements[^/]*\.txt)$/i;

/** The file in which programs of that interpreter name their packages; those of most use Python's. */
export function packagesFileOf(interpreter) {
  return FILES[interpreter] ?? "requirements.txt";
}

/** Whether a file of that name names packages. */
export function namesPackages(path) {
  return LISTS.test(path);
}

/** The text of the file: as written, but for Node also made from names, one a line. Throws SyntaxError. */
export function packagesText(written, interpreter) {
  if (interpreter !== "node") return `${written.trimEnd()}\n`;
  return written.trimStart().startsWith("{") ? checked(written) : fromNames(written);
}

function checked(written) {
  try {
    JSON.parse(written);
  } catch (error) {
    throw new SyntaxError(`The package.json is not valid JSON: ${error.message}.`);
  }
  return written;
}

function fromNames(written) {
  const dependencies = [];
  for (const word of written.split("\n").map((line) => line.trim())) {
    if (word === "" || word.startsWith("#")) continue;
    const match = DEPENDENCY.exec(word);
    if (!match) throw new SyntaxError(`"${word}" is not a package: write name or name@version, one per line.`);
    dependencies.push([match[1], match[2] ?? "latest"]);
  }
  return `${JSON.stringify({ dependencies: Object.fromEntries(dependencies) }, null, 2)}\n`;
}
