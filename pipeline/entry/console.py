"""The command `melisma`: every other command by its name, and the completion of what is typed after it."""

import ast
import os
import runpy
import sys
from pathlib import Path

from pipeline.entry.completion import completions

PACKAGE = Path(__file__).resolve().parents[1]
USAGE = """\
usage: melisma COMMAND [key=value …]     melisma COMMAND --help tells of one
       eval "$(melisma completion bash)"   completes commands, groups and settings with the tab key; or zsh
"""
# What the shell does with what `melisma complete` prints; it breaks words at = otherwise.
BASH = """\
_melisma() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" word
    COMPREPLY=($(melisma complete "$line" 2>/dev/null))
    word="${line##* }"
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
}
complete -o nospace -F _melisma melisma
"""
ZSH = """\
_melisma() {
    local -a found
    found=("${(@f)$(melisma complete "${BUFFER[1,CURSOR]}" 2>/dev/null)}")
    compadd -Q -S '' -- $found
}
compdef _melisma melisma
"""
SHELLS = {"bash": BASH, "zsh": ZSH}


def command_lines() -> dict[str, str]:
    """The first line of every command's documentation, by its name as it is typed."""
    lines = {}
    for path in sorted(PACKAGE.glob("*.py")):
        if not path.name.startswith("_"):
            words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            lines[path.stem.replace("_", "-")] = words.partition("\n")[0]
    return lines


def main() -> None:
    """Run the command line."""
    # A command goes by the folder it is typed in, as `python -m` does.
    sys.path.insert(0, os.getcwd())
    arguments, commands = sys.argv[1:], command_lines()
    name = arguments[0].replace("_", "-") if arguments else ""
    if name in commands:
        module = f"pipeline.{name.replace('-', '_')}"
        sys.argv = [f"melisma {name}", *arguments[1:]]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif name == "complete":
        print("\n".join(completions(arguments[1], list(commands))))
    elif name == "completion" and arguments[1:2] and arguments[1] in SHELLS:
        print(SHELLS[arguments[1]], end="")
    elif name in ("", "-h", "--help"):
        width = max(map(len, commands))
        print(USAGE, *(f"  {command:{width}}  {line}" for command, line in commands.items()), sep="\n")
    else:
        known = ", ".join(commands)
        print(f"ERROR: melisma has no command `{' '.join(arguments)}`; known are {known}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
