"""Judge0 CE's numbers of languages, for the interpreters that the worker has."""

from dataclasses import dataclass
from typing import Any

from sandrun_shared.languages import BY_NAME, EXECUTABLE

MULTI_FILE = 89


@dataclass(frozen=True)
class Language:
    """One number: its name as listed, the interpreter, the file that the source becomes."""

    number: int
    name: str
    interpreter: str
    source_file: str | None

    def brief(self) -> dict[str, Any]:
        """As `GET /languages` lists it."""
        return {"id": self.number, "name": self.name}

    @property
    def is_compiled(self) -> bool:
        """Whether a compiler makes the program."""
        return bool(BY_NAME[self.interpreter].compiler)

    def full(self) -> dict[str, Any]:
        """As `GET /languages/{id}` shows it."""
        command = None if self.source_file is None else f"{self.interpreter} {self.source_file}"
        return {
            **self.brief(),
            "is_archived": False,
            "source_file": self.source_file,
            "compile_cmd": command if self.is_compiled else None,
            "run_cmd": "./a.out" if self.is_compiled else command,
        }


# The numbers that CE 1.13.1 has, and those it gave to single versions: they count only for these.
_TABLE: tuple[tuple[int, str, str, str, str], ...] = (
    (44, "Executable", EXECUTABLE, "a.out", ""),
    (46, "Bash ({})", "bash", "script.sh", ""),
    (48, "C (GCC {})", "c", "main.c", ""),
    (49, "C (GCC {})", "c", "main.c", ""),
    (50, "C (GCC {})", "c", "main.c", ""),
    (103, "C (GCC {})", "c", "main.c", "14."),
    (52, "C++ (GCC {})", "cpp", "main.cpp", ""),
    (53, "C++ (GCC {})", "cpp", "main.cpp", ""),
    (54, "C++ (GCC {})", "cpp", "main.cpp", ""),
    (105, "C++ (GCC {})", "cpp", "main.cpp", "14."),
    (60, "Go ({})", "go", "main.go", ""),
    (95, "Go ({})", "go", "main.go", "1.18."),
    (106, "Go ({})", "go", "main.go", "1.22."),
    (107, "Go ({})", "go", "main.go", "1.23."),
    (63, "JavaScript (Node.js {})", "node", "script.js", ""),
    (93, "JavaScript (Node.js {})", "node", "script.js", "18."),
    (97, "JavaScript (Node.js {})", "node", "script.js", "20."),
    (102, "JavaScript (Node.js {})", "node", "script.js", "22."),
    (68, "PHP ({})", "php", "script.php", ""),
    (98, "PHP ({})", "php", "script.php", "8."),
    (71, "Python ({})", "python3", "script.py", ""),
    (92, "Python ({})", "python3", "script.py", "3.11."),
    (100, "Python ({})", "python3", "script.py", "3.12."),
    (109, "Python ({})", "python3", "script.py", "3.13."),
    (73, "Rust ({})", "rust", "main.rs", ""),
    (108, "Rust ({})", "rust", "main.rs", "1.85."),
    (72, "Ruby ({})", "ruby", "script.rb", ""),
    (80, "R ({})", "Rscript", "script.r", ""),
    (99, "R ({})", "Rscript", "script.r", "4."),
    (85, "Perl ({})", "perl", "script.pl", ""),
)


def languages(versions: dict[str, str]) -> dict[int, Language]:
    """Every language by its number, for these interpreters and their versions."""
    found = {
        number: Language(number, name.format(versions[interpreter]), interpreter, source_file)
        for number, name, interpreter, source_file, prefix in _TABLE
        if interpreter in versions and versions[interpreter].startswith(prefix)
    }
    if "bash" in versions:
        found[MULTI_FILE] = Language(MULTI_FILE, "Multi-file program", "bash", None)
    return dict(sorted(found.items()))
