"""What the server calls an interpreter, and a file of it."""

# As in sandrun_shared.languages, which is the server's; a test compares.
_ALIASES = {
    "python": "python3",
    "py": "python3",
    "py3": "python3",
    "javascript": "node",
    "js": "node",
    "nodejs": "node",
    "node.js": "node",
    "mjs": "node",
    "cjs": "node",
    "shell": "sh",
    "shellscript": "sh",
    "dash": "sh",
    "rb": "ruby",
    "R": "Rscript",
    "rlang": "Rscript",
    "pl": "perl",
    "c++": "cpp",
    "cxx": "cpp",
    "cplusplus": "cpp",
    "golang": "go",
    "rs": "rust",
}
_FILE_NAMES = {
    "python3": "main.py",
    "node": "main.js",
    "bash": "main.sh",
    "sh": "main.sh",
    "ruby": "main.rb",
    "Rscript": "main.R",
    "perl": "main.pl",
    "php": "main.php",
    "c": "main.c",
    "cpp": "main.cpp",
    "go": "main.go",
    "rust": "main.rs",
}
_BOM = b"\xef\xbb\xbf"
_KEEP_BOM = frozenset(
    {"node", "sh", "bash", "Rscript", "php"}
)  # as a part of the program: they do not skip it
DEFAULT = "python3"
MAINS = tuple(dict.fromkeys(_FILE_NAMES.values()))
_FOLDED = {name.lower(): _ALIASES.get(name, name) for name in (*_ALIASES, *_FILE_NAMES)}
_KEEP_BOM_SUFFIXES = (".js", ".mjs", ".cjs", ".sh", ".bash", ".R", ".r", ".php")


def canonical(name: str) -> str:
    """The one name of an interpreter that has several, in whatever case."""
    return _FOLDED.get(name.lower(), name)


def known() -> list[str]:
    """Every name that is known here; a server may have more."""
    return sorted({*_ALIASES, *_FILE_NAMES})


def file_name_of(interpreter: str) -> str:
    """The name under which a single piece of code is saved."""
    return _FILE_NAMES.get(canonical(interpreter), "main")


def code_for(interpreter: str | None, file: str, code: bytes) -> bytes:
    """Code as its language reads it: without a byte order mark where it would be a part of the program.

    Without an interpreter, the name of the file or its #! line tells the language.
    """
    if interpreter:
        chokes = canonical(interpreter) in _KEEP_BOM
    else:
        chokes = file.endswith(_KEEP_BOM_SUFFIXES) or code.startswith(_BOM + b"#!")
    return code.removeprefix(_BOM) if chokes else code
