// Bundles the editor and the terminal in this folder, and writes the licence of every package of which a part is in a bundle.
import { readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { build } from "esbuild";

const options = { bundle: true, minify: true, format: "esm", target: "es2022", legalComments: "none", metafile: true, logLevel: "warning" };

// Each change with how often it is made: another version of xterm.js may need others.
const CHANGES = [
  [/\.createElement\("style"\)/g, '.createElement("sandrun-style")', 2],
  [/(\w+)\.setAttribute\("style",(`\$\{\1\.getAttribute\("style"\)\|\|""\}\$\{\w+\};`)\)/g, "$1.style.cssText=$2", 1],
];
const withoutInlineStyles = {
  name: "without-inline-styles",
  setup({ onLoad }) {
    onLoad({ filter: /@xterm\/xterm\/.*\.m?js$/ }, async ({ path }) => {
      let contents = await readFile(path, "utf8");
      for (const [pattern, replacement, times] of CHANGES) {
        const found = contents.match(pattern)?.length ?? 0;
        if (found !== times) throw new Error(`${pattern} occurs ${found} times in ${path}, not ${times}`);
        contents = contents.replace(pattern, replacement);
      }
      return { contents, loader: "js" };
    });
  },
};

function licences(file, inputs) {
  const used = Object.keys(inputs).map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean);
  const texts = [...new Set(used)].sort().map((name) => {
    const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`));
    if (license !== "MIT") throw new Error(`${name} is under ${license}`);
    return `\n${"=".repeat(80)}\n${name} ${version}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
  });
  return `${file} is a bundle of these packages, each under the MIT licence that follows it.\n${texts.join("")}`;
}

for (const [entry, name, plugins] of [["entry.js", "codemirror", []], ["terminal.js", "xterm", [withoutInlineStyles]]]) {
  const { metafile } = await build({ ...options, entryPoints: [entry], outfile: `${name}.js`, plugins });
  writeFileSync(`${name}-licences.txt`, licences(`${name}.js`, metafile.inputs));
}
writeFileSync("xterm.css", readFileSync("node_modules/@xterm/xterm/css/xterm.css"));

// Swagger UI comes bundled, with a list of what is in it. Its npm package alone depends on one that reports installations;
// package.json puts a harmless one in its place.
const viewer = "node_modules/swagger-ui-dist";
for (const file of ["swagger-ui-bundle.js", "swagger-ui.css"]) {
  writeFileSync(file, readFileSync(`${viewer}/${file}`, "utf8").replace(/\n?(?:\/\/|\/\*)# sourceMappingURL=[^\n]*\n?$/, "\n"));
}
const { version } = JSON.parse(readFileSync(`${viewer}/package.json`));
writeFileSync("swagger-ui-licences.txt", [
  `swagger-ui-dist ${version}\n`,
  ...["NOTICE", "LICENSE", "swagger-ui-bundle.js.LICENSE.txt"].map((file) => readFileSync(`${viewer}/${file}`, "utf8").trim()),
].join(`\n\n${"=".repeat(80)}\n`) + "\n");
