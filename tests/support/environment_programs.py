"""For every package that a shipped environment names, a small program that uses it once."""

# A missing glyph is a warning, and here an error: whichever font a program asks for, and in every kind of file.
CJK_PLOT = """
import logging, warnings
warnings.simplefilter("error")
import matplotlib.pyplot as plt
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says so when a font is not there
for family, kinds in {"sans-serif": ("png", "svg", "pdf"), "serif": ("png",), "SimHei": ("png",)}.items():
    plt.rcParams["font.family"] = family
    plt.figure(figsize=(2, 1))
    plt.title("TEXT")
    for kind in kinds:
        plt.savefig("out." + kind)
    plt.close()
"""

PROGRAMS: dict[str, dict[str, str]] = {
    "default": {"the standard library": "import ctypes, json, sqlite3, ssl, zlib\n"},
    "agent": {
        "manimgx-fonts": CJK_PLOT.replace("TEXT", "rocket \U0001f680, snake \U0001f40d, check \u2705"),
        "matplotlib": CJK_PLOT.replace("TEXT", "Grüße, $x^2$, naïve"),
        "numpy": "import numpy\nassert numpy.linalg.det(numpy.eye(3)) == 1\n",
        "openpyxl": """
import openpyxl
book = openpyxl.Workbook()
book.active.append(["漢字", 2])
book.save("out.xlsx")
assert [cell.value for cell in openpyxl.load_workbook("out.xlsx").active[1]] == ["漢字", 2]
""",
        "pandas": """
import pandas
pandas.DataFrame({"a": [1, 2]}).to_excel("out.xlsx", index=False)
assert pandas.read_excel("out.xlsx").a.sum() == 3
""",
        "pillow": """
from PIL import Image, ImageDraw, ImageFont
image = Image.new("RGB", (200, 50), "white")
ImageDraw.Draw(image).text((5, 5), "Sandrun", fill="black", font=ImageFont.load_default())
for kind in "png", "jpeg", "webp":
    image.save("out." + kind)
    assert Image.open("out." + kind).size == (200, 50)
""",
        "pylopdf-fonts-ko": CJK_PLOT.replace("TEXT", "한국어"),
        "pylopdf-fonts-zh-cn": CJK_PLOT.replace("TEXT", "漢字 简体中文 ひらがな カタカナ"),
        "scikit-learn": """
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
X, y = load_iris(return_X_y=True)
assert cross_val_score(RandomForestClassifier(20, n_jobs=2, random_state=0), X, y, cv=3).mean() > 0.9
""",
        "scipy": "from scipy import optimize\nassert abs(optimize.brentq(lambda x: x * x - 2, 0, 2) ** 2 - 2) < 1e-9\n",
        "seaborn": """
import warnings; warnings.simplefilter("error")
import pandas, seaborn
seaborn.set_theme()  # names other fonts
frame = pandas.DataFrame({"時間": range(9), "값": range(9), "种类": list("abcabcabc")})
axes = seaborn.scatterplot(frame, x="時間", y="값", hue="种类")
axes.figure.savefig("out.png")
""",
        "sympy": """
import sympy
x = sympy.symbols("x")
assert sympy.integrate(sympy.sin(x), (x, 0, sympy.pi)) == 2
""",
    },
    "ml-basic": {
        "numpy": """
import numpy
a = numpy.random.default_rng(1).random((300, 300))
assert numpy.allclose(numpy.linalg.svd(a, compute_uv=False)[0], numpy.linalg.norm(a, 2))
""",
        "scipy": """
from scipy import optimize, sparse, stats
assert abs(optimize.brentq(lambda x: x * x - 2, 0, 2) - 2 ** 0.5) < 1e-9
assert sparse.eye(3).sum() == 3
assert abs(stats.norm.cdf(0) - 0.5) < 1e-12
""",
        "pandas": """
import io, pandas
frame = pandas.read_csv(io.StringIO("day,n\\n2024-07-01,1\\n2024-07-02,2\\n2024-07-02,3\\n"), parse_dates=["day"])
assert frame.groupby("day").n.sum().tolist() == [1, 5]
assert str(frame.day.dt.tz_localize("Europe/Berlin")[0]).endswith("+02:00")
frame.to_csv("out.csv")
""",
        "scikit-learn": """
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
X, y = load_iris(return_X_y=True)
assert cross_val_score(RandomForestClassifier(20, n_jobs=2, random_state=0), X, y, cv=3).mean() > 0.9
blobs, _ = make_blobs(random_state=0)
assert len(set(KMeans(3, random_state=0).fit_predict(blobs))) == 3
""",
    },
    "vision": {
        "numpy": "import numpy\nassert numpy.zeros((2, 2)).sum() == 0\n",
        "opencv-python-headless": """
import cv2, numpy
image = numpy.zeros((64, 64, 3), numpy.uint8)
cv2.circle(image, (32, 32), 20, (255, 255, 255), -1)
ok, data = cv2.imencode(".jpg", image)
assert ok and cv2.imdecode(data, cv2.IMREAD_COLOR).shape == image.shape
assert cv2.Canny(image, 100, 200).any()
""",
        "pillow": """
from PIL import Image, ImageDraw, ImageFont
image = Image.new("RGB", (200, 50), "white")
ImageDraw.Draw(image).text((5, 5), "Sandrun", fill="black", font=ImageFont.load_default())
for kind in "png", "jpeg", "webp":
    image.save("out." + kind)
    assert Image.open("out." + kind).size == (200, 50)
""",
        "scikit-image": """
import numpy
from skimage import filters, io, measure
image = numpy.zeros((60, 60)); image[10:20, 10:20] = image[30:50, 30:50] = 1
assert measure.label(image > filters.threshold_otsu(image)).max() == 2
io.imsave("out.png", (image * 255).astype("uint8"))
""",
        "scipy": "from scipy import ndimage\nassert ndimage.label([[1, 0, 1]])[1] == 2\n",
    },
    "nlp": {
        "nltk": """
import nltk
from nltk.stem import PorterStemmer
assert nltk.wordpunct_tokenize("It runs, safely.") == ["It", "runs", ",", "safely", "."]
assert PorterStemmer().stem("running") == "run"
assert nltk.FreqDist("abca")["a"] == 2
""",
        "numpy": "import numpy\nassert numpy.dot([1, 2], [3, 4]) == 11\n",
        "spacy": """
import spacy
nlp = spacy.blank("en"); nlp.add_pipe("sentencizer")
assert len(list(nlp("One sentence. Another one.").sents)) == 2
""",
        "tokenizers": """
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
tokenizer = Tokenizer(models.BPE(unk_token="?")); tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.train_from_iterator(["low lower lowest"] * 10, trainers.BpeTrainer(special_tokens=["?"], show_progress=False))
assert tokenizer.encode("lower").tokens == ["lower"]
""",
        "transformers": """
from tokenizers import Tokenizer, models
from transformers import BertConfig, PreTrainedTokenizerFast
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")))
assert tokenizer("a")["input_ids"] == [0]
assert BertConfig().hidden_size == 768
""",
    },
    "data-science": {
        "ipykernel": "import ipykernel.kernelapp\nassert ipykernel.kernelapp.IPKernelApp.name\n",
        "jupyter-client": """
from jupyter_client.kernelspec import KernelSpecManager
assert "python3" in KernelSpecManager().find_kernel_specs()
""",
        "matplotlib": """
import matplotlib, matplotlib.pyplot as plt
assert matplotlib.get_backend().lower() == "agg"
plt.plot([1, 2, 3]); plt.title("Grüße, $x^2$")
for kind in "png", "svg", "pdf":
    plt.savefig("out." + kind)
assert open("out.png", "rb").read(4) == b"\\x89PNG"
""",
        "nbclient": """
import nbclient, nbformat.v4 as v4
from jupyter_client.manager import AsyncKernelManager
notebook = v4.new_notebook(cells=[v4.new_code_cell("%matplotlib inline\\nprint(6 * 7)")])
nbclient.NotebookClient(notebook, timeout=60, km=AsyncKernelManager(transport="ipc")).execute()
assert notebook.cells[0].outputs[0].text == "42\\n"
""",
        "nbformat": """
import nbformat
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")])
nbformat.validate(notebook); nbformat.write(notebook, "out.ipynb")
""",
        "numpy": "import numpy\nassert numpy.mean([1, 3]) == 2\n",
        "pandas": "import pandas\nassert pandas.DataFrame({'a': [1, 2]}).a.sum() == 3\n",
        "seaborn": """
import pandas, seaborn
seaborn.set_theme()
frame = pandas.DataFrame({"x": range(9), "y": range(9), "kind": list("abcabcabc")})
seaborn.scatterplot(frame, x="x", y="y", hue="kind").figure.savefig("out.png")
""",
    },
    "scientific": {
        "networkx": """
import networkx
graph = networkx.path_graph(5)
assert networkx.shortest_path(graph, 0, 4) == [0, 1, 2, 3, 4]
assert abs(sum(networkx.pagerank(graph).values()) - 1) < 1e-6
""",
        "numpy": "import numpy\nassert numpy.polyfit([0, 1, 2], [1, 3, 5], 1).round(6).tolist() == [2, 1]\n",
        "pandas": "import pandas\nassert pandas.Series([1, 2, 3]).rolling(2).mean().iloc[-1] == 2.5\n",
        "scipy": "from scipy import integrate\nassert abs(integrate.quad(lambda x: x, 0, 2)[0] - 2) < 1e-9\n",
        "statsmodels": """
import numpy, statsmodels.api as sm
x = numpy.arange(20.0)
assert abs(sm.OLS(3 * x + 1, sm.add_constant(x)).fit().params[1] - 3) < 1e-9
""",
        "sympy": """
import sympy
x = sympy.symbols("x")
assert sympy.integrate(sympy.sin(x), (x, 0, sympy.pi)) == 2
assert sympy.latex(sympy.sqrt(x)) == r"\\sqrt{x}"
""",
    },
}

# Every module that any of the installed distributions brings, imported; prints those that cannot be.
IMPORT_ALL = """
import importlib, importlib.metadata, re, warnings
warnings.simplefilter("ignore")
count = 0
for name in sorted(importlib.metadata.packages_distributions()):
    if name.startswith("_") or not name.isidentifier() or name in {"tests", "test"}:
        continue
    try:
        importlib.import_module(name)
        count += 1
    except Exception as error:
        print(name, repr(error))
print(count)
"""

# What must differ between two jobs, what must not, and what must not be there.
STREAMS = """
import multiprocessing.process as process, os, random, secrets, tempfile, uuid
import numpy
own = [random.random(), numpy.random.random(), numpy.random.default_rng().random(), numpy.random.RandomState().rand()]
own += [random.Random().random(), process.current_process().authkey.hex(), secrets.token_hex(), uuid.uuid4().hex]
own += [os.path.basename(tempfile.mktemp())]
a = numpy.random.default_rng(7).random((200, 200))
same = numpy.linalg.inv(a @ a.T + numpy.eye(200)).tobytes()
import hashlib
threads = len(os.listdir("/proc/self/task"))
print(*own, hashlib.sha256(same).hexdigest(), threads, ",".join(sorted(os.listdir("/proc/self/fd"))))
"""
DIFFERENT = 9  # how many of its words differ

# Every generator that the garbage collector knows, and its state: none may be the same in two warm jobs.
GENERATORS = """
import gc, hashlib, random, sys
import MODULES
def state(thing):
    if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
        return thing.getstate()
    kind = type(thing).__module__ + "." + type(thing).__name__
    if kind == "numpy.random.mtrand.RandomState":
        return tuple(thing.get_state()[1].tolist())
    if kind == "numpy.random._generator.Generator":
        return str(thing.bit_generator.state)
gc.unfreeze()
for thing in gc.get_objects():
    try:
        found = state(thing)
    except Exception:
        continue
    if found is not None:
        print(type(thing).__name__, hashlib.sha256(repr(found).encode()).hexdigest())
"""
