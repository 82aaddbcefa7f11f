// Which environment has which packages: what the picker says of each, and which one a program lacks.

const HEADLINES = 4;
// Packages that people choose an environment for, the first ones first.
const KNOWN = [
  "torch", "tensorflow", "jax", "scikit-learn", "pandas", "polars", "numpy", "scipy", "matplotlib", "seaborn", "plotly", "statsmodels",
  "sympy", "networkx", "opencv-python-headless", "opencv-python", "scikit-image", "pillow", "transformers", "spacy", "nltk", "requests",
  "beautifulsoup4", "lxml", "pyyaml", "jupyter-client",
];
// Modules whose package has another name.
const PACKAGES = {
  sklearn: ["scikit-learn"], cv2: ["opencv-python-headless", "opencv-python"], PIL: ["pillow"], skimage: ["scikit-image"], yaml: ["pyyaml"],
  bs4: ["beautifulsoup4"], dateutil: ["python-dateutil"], mpl_toolkits: ["matplotlib"], attr: ["attrs"],
};
const LACKING = /^(?:ModuleNotFoundError|ImportError): No module named '([\w.]+)'/gm;

/** The name of a package without its version, as indexes compare names (PEP 503). */
function bare(item) {
  return /^[\w.-]*/.exec(item)[0].replace(/[-_.]+/g, "-").toLowerCase();
}

/** The few packages that say most of an environment. */
export function headlines({ packages = [] }) {
  const names = packages.map(bare);
  const known = KNOWN.filter((name) => names.includes(name));
  return (known.length > 0 ? known : names).slice(0, HEADLINES);
}

/** The names of those environments that have a package. */
export function withPackage(environments, name) {
  return environments.filter(({ packages = [] }) => packages.map(bare).includes(bare(name))).map((environment) => environment.name);
}

/** The module that a Python program did not find, and the environments that have it; null if that is not why it ended. */
export function lacking(text, environments) {
  const module = [...text.matchAll(LACKING)].at(-1)?.[1];
  if (!module) return null;
  const top = module.split(".")[0];
  const names = (PACKAGES[top] ?? [top]).flatMap((name) => withPackage(environments, name));
  return { module, environments: [...new Set(names)] };
}
