// Tables of text: comma- or tab-separated values (RFC 4180), read as far as they are shown.

/** At most `most` rows, each a list of texts. A last row that may be cut is left out when `cut`. */
export function parseTable(text, separator, most, cut = false) {
  const rows = [];
  let row = [];
  let field = "";
  let quoted = false;
  const end = () => { row.push(field); field = ""; };
  for (let index = text.charCodeAt(0) === 0xfeff ? 1 : 0; index < text.length; index += 1) {
    const letter = text[index];
    if (quoted) {
      if (letter !== '"') field += letter;
      else if (text[index + 1] === '"') { field += '"'; index += 1; }
      else quoted = false;
    } else if (letter === '"' && field === "") quoted = true;
    else if (letter === separator) end();
    else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[index + 1] === "\n") index += 1;
      end();
      rows.push(row);
      row = [];
      if (rows.length === most) return rows;
    } else field += letter;
  }
  if (!cut && (field !== "" || row.length > 0)) { end(); rows.push(row); }
  return rows;
}
