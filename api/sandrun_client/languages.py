"""What the server calls an interpreter, and a file of it."""

# As in sandrun_shared.languages, which is the server's; a test compares.
_ALIASES = {
    "python": "python3",
    "javascript": "node",
    "js": "node",
    "nodejs": "node",
    "shell": "sh",
    "dash": "sh",
    "r": "Rscript",
    "R": "Rscript",
    "c++": "cpp",
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
DEFAULT = "python3"
MAINS = tuple(dict.fromkeys(_FILE_NAMES.values()))


def canonical(name: str) -> str:
    """The one name of an interpreter that has several."""
    return _ALIASES.get(name, name)


def known() -> list[str]:
    """Every name that is known here; a server may have more."""
    return sorted({*_ALIASES, *_FILE_NAMES})


def file_name_of(interpreter: str) -> str:
    """The name under which a single piece of code is saved."""
    return _FILE_NAMES.get(canonical(interpreter), "main")
