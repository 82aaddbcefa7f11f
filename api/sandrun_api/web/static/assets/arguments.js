// A line of arguments, split as a shell splits words; nothing is expanded.

/** The words of a line. Throws SyntaxError for a quote that does not end. */
export function splitArguments(line) {
  const words = [];
  let word = null;
  for (let index = 0; index < line.length; index += 1) {
    const letter = line[index];
    if (letter === "'" || letter === '"') {
      word ??= "";
      for (index += 1; line[index] !== letter; index += 1) {
        if (index >= line.length) throw new SyntaxError(`The arguments have a ${letter} that does not end.`);
        if (letter === '"' && line[index] === "\\" && '"\\$`'.includes(line[index + 1] ?? " ")) index += 1;
        word += line[index];
      }
    } else if (letter === "\\" && index + 1 < line.length) {
      index += 1;
      word = (word ?? "") + line[index];
    } else if (/\s/.test(letter)) {
      if (word !== null) words.push(word);
      word = null;
    } else {
      word = (word ?? "") + letter;
    }
  }
  if (word !== null) words.push(word);
  return words;
}
