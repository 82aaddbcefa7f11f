"""Judge0 CE's numbers of languages, for the interpreters that the worker has."""

from dataclasses import dataclass
from typing import Any

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

    def full(self) -> dict[str, Any]:
        """As `GET /languages/{id}` shows it."""
        run = None if self.source_file is None else f"{self.interpreter} {self.source_file}"
        more = {"is_archived": False, "source_file": self.source_file, "compile_cmd": None, "run_cmd": run}
        return {**self.brief(), **more}


# The number that CE has always had, then those it gave to single versions: they count only for these.
_TABLE: tuple[tuple[int, str, str, str, str], ...] = (
    (46, "Bash ({})", "bash", "script.sh", ""),
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
