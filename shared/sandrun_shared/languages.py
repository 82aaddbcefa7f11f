"""The languages of jobs: one table. docs/languages.md says how to add one."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

DEFAULT = "python3"  # for code without any sign of its language
ENTRYPOINT = "{entrypoint}"  # placeholder in a command for the file to run, relative to the work directory
PROGRAM = "/tmp/a.out"  # noqa: S108 (the job's own) what a compiler writes: no output unless the job copies it
EXECUTABLE = "executable"
BOM = b"\xef\xbb\xbf"  # the byte order mark of UTF-8, which Windows editors write

_ELF = b"\x7fELF"
_ELF_64_LITTLE = b"\x02\x01"  # EI_CLASS, EI_DATA (elf(5))
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}


# Without msgspec, because the client imports this table at each start.
@dataclass(frozen=True, kw_only=True)
class Language:
    """How programs of one language are recognised, compiled if necessary, and run.

    extensions are those of its files, main is the file name of code without one. Commands are absolute; the
    program's arguments follow. version is a command that prints it. env is added to the sandbox's variables;
    the job's override it. takes_bom: whether it skips a byte order mark, also before a #! line, instead of
    treating it as part of the program.
    """

    name: str
    main: str
    extensions: tuple[str, ...]
    command: tuple[str, ...]
    version: tuple[str, ...]
    compiler: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    takes_bom: bool = True

    @property
    def needs(self) -> str:
        """The absolute path of the file that it requires, or ""."""
        needed = (self.compiler or self.command)[0]
        return needed if needed.startswith("/") else ""

    @property
    def is_native(self) -> bool:
        """Whether its programs are machine code, whose recursion depth only the stack limits."""
        return bool(self.compiler) or self.name == EXECUTABLE


def _interpreted(
    name: str,
    extensions: str,
    path: str,
    *asks: str,
    main: str = "",
    aliases: str = "",
    takes_bom: bool = True,
    **env: str,
) -> Language:
    """Describe a language that the program at path interprets; asks are the arguments for its version."""
    suffixes = tuple(extensions.split())
    return Language(
        name=name,
        main=main or "main" + suffixes[0],
        extensions=suffixes,
        command=(path, ENTRYPOINT),
        version=(path, *(asks or ("--version",))),
        env=env,
        aliases=tuple(aliases.split()),
        takes_bom=takes_bom,
    )


def _compiled(
    name: str, extensions: str, compiler: str, *asks: str, aliases: str = "", **env: str
) -> Language:
    """Describe a language that a compiler's command line turns into a program."""
    words, suffixes = tuple(compiler.split()), tuple(extensions.split())
    return Language(
        name=name,
        main="main" + suffixes[0],
        extensions=suffixes,
        command=(PROGRAM,),
        compiler=words,
        version=(words[0], *(asks or ("--version",))),
        env=env,
        aliases=tuple(aliases.split()),
    )


# dash does not print its version.
_SH_VERSION = """dpkg-query -W -f '${Version}' "$(basename "$(readlink -f /usr/bin/sh)")\""""
_GO = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
_GO |= {"GOCACHE": "/tmp/.go"}  # noqa: S108 (the job's own)

LANGUAGES = (
    _interpreted("python3", ".py", "/usr/bin/python3", aliases="python py py3"),
    _interpreted(
        "node",
        ".js .mjs .cjs",
        "/usr/bin/node",
        aliases="javascript js nodejs node.js mjs cjs",
        takes_bom=False,
    ),
    _interpreted(
        "sh", ".sh", "/usr/bin/sh", "-c", _SH_VERSION, aliases="shell shellscript dash", takes_bom=False
    ),
    _interpreted("bash", ".bash", "/usr/bin/bash", main="main.sh", takes_bom=False),
    _interpreted("ruby", ".rb", "/usr/bin/ruby", aliases="rb"),
    _interpreted("Rscript", ".R .r", "/usr/bin/Rscript", aliases="R rlang", takes_bom=False),
    _interpreted("perl", ".pl", "/usr/bin/perl", "-e", "print substr($^V, 1)", aliases="pl"),
    _interpreted("php", ".php", "/usr/bin/php", takes_bom=False),
    _compiled("c", ".c", f"/usr/bin/gcc -O2 -o {PROGRAM} {ENTRYPOINT} -lm"),
    _compiled(
        "cpp", ".cpp .cc .cxx", f"/usr/bin/g++ -O2 -o {PROGRAM} {ENTRYPOINT}", aliases="c++ cxx cplusplus"
    ),
    _compiled(
        "go", ".go", f"/usr/bin/go build -o {PROGRAM} {ENTRYPOINT}", "version", aliases="golang", **_GO
    ),
    _compiled("rust", ".rs", f"/usr/bin/rustc -O -o {PROGRAM} {ENTRYPOINT}", aliases="rs"),
    Language(
        name=EXECUTABLE,
        main="main",
        extensions=(),
        command=(f"./{ENTRYPOINT}",),
        version=("/usr/bin/uname", "-m"),
        aliases=("binary", "elf"),
    ),
)
BY_NAME = {language.name: language for language in LANGUAGES}
NAMES = {name: language.name for language in LANGUAGES for name in (language.name, *language.aliases)}
_FOLDED = {name.lower(): language for name, language in NAMES.items()}
_BY_EXTENSION = {suffix: language.name for language in LANGUAGES for suffix in language.extensions}


def canonical(name: str) -> str:
    """Map any name of a language, in any case, to its main name; returns an unknown one unchanged."""
    return _FOLDED.get(name.lower(), name)


def code_for(name: str, code: bytes) -> bytes:
    """Strip the byte order mark from code if the language would treat it as part of the program."""
    return code if name not in BY_NAME or BY_NAME[name].takes_bom else code.removeprefix(BOM)


def file_name_of(name: str) -> str:
    """Return the file name for a single piece of code of a language."""
    return BY_NAME[name].main if name in BY_NAME else "main"


def of_file(path: str, head: bytes) -> str:
    """Recognise a file's language by its extension, else by its first bytes, else ""."""
    by_extension, named = of_extension(PurePosixPath(path).suffix), of_head(head)
    if named == EXECUTABLE or (by_extension, named) == ("sh", "bash"):
        return named  # .sh may be any shell
    return by_extension or named


def of_extension(suffix: str) -> str:
    """Recognise a language by the extension, else ""."""
    return _BY_EXTENSION.get(suffix, "")


def of_head(head: bytes) -> str:
    """Recognise a language by a file's first bytes, an ELF header or a #! line, else ""."""
    if head.startswith(_ELF):
        return EXECUTABLE
    head = head.removeprefix(BOM)
    if not head.startswith(b"#!"):
        return ""
    words = head[2:].split(b"\n")[0].decode("utf-8", "replace").split()
    if words and _base(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    command = _base(words[0]) if words else ""
    # File names are case-sensitive, so /usr/bin/Python does not exist. python3.12, ruby3.1:
    name = NAMES.get(command) or NAMES.get(re.sub(r"[\d.]+\Z", "", command), "")
    # A #! line names an interpreter, so a compiled language cannot be meant.
    return name if name in BY_NAME and ENTRYPOINT in BY_NAME[name].command else ""


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def machine_of(head: bytes) -> str:
    """Return an ELF file's machine as uname(2) names it; "" for an unknown one or another file."""
    if not head.startswith(_ELF + _ELF_64_LITTLE) or len(head) < 20:
        return ""
    return _ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "")
