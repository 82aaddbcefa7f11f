// Environment variables as a person writes them: NAME=value, one a line.

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** The values by name; empty lines and those that begin with # say nothing. Throws SyntaxError, which names the line. */
export function readVariables(text) {
  const variables = new Map();
  for (const [index, line] of text.split("\n").entries()) {
    const bare = line.replace(/^\s*(?:export\s+)?/, "");
    if (bare === "" || bare.startsWith("#")) continue;
    const where = `Line ${index + 1} of the environment variables`;
    const at = bare.indexOf("=");
    if (at < 0) throw new SyntaxError(`${where} is not of the form NAME=value.`);
    const name = bare.slice(0, at);
    if (!NAME.test(name)) throw new SyntaxError(`${where}: a name has letters, digits and underscores, and no digit first.`);
    if (variables.has(name)) throw new SyntaxError(`${where} sets ${name} again.`);
    variables.set(name, bare.slice(at + 1)); // as it is: quotes and blanks belong to it
  }
  return Object.fromEntries(variables);
}
