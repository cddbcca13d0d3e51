"""Which files of a folder are source code, settings or logs: text, whatever language it is in."""

from __future__ import annotations

_ENDINGS = frozenset(
    """
    adb ads agda asm awk bash bat bib c cc cfg clj cljs cls cmake cmd coffee conf cpp cs css cu cxx
    cuh d dart diff el elm erl ex exs f f03 f08 f90 f95 fish fs fsx gd glsl go gradle graphql groovy
    h hcl hh hpp hrl hs hxx idl inc ini java jinja jl js jsx kt kts lean less lhs lisp log lua m mjs
    cjs mk ml mli mm nim nix org pas patch php pl pm po proto properties ps1 pxd py pyi pyx qml r rb
    rkt rs s sass sbt scala scm scss sh sol sql srt styl sty sv svelte swift tcl tex tf thy toml ts
    tsx v vb vhd vhdl vim vtt vue yaml yml zig zsh adoc asciidoc textile wiki
""".split()  # noqa: SIM905
)
_NAMES = frozenset(
    """
    authors changelog changes cmakelists contributing contributors copying dockerfile gemfile
    jenkinsfile justfile license licence makefile news notice procfile rakefile readme todo
    vagrantfile version
""".split()  # noqa: SIM905
)


def is_source_code(name: str) -> bool:
    """Says whether a file's name is one of source code, settings, logs or notes beside them.

    Args:
        name: The file's name, without its folder.
    """
    stem, dot, ending = name.lower().rpartition(".")
    return ending in _ENDINGS if dot and stem else ending in _NAMES
