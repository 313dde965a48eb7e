"""Teaches the API reference two habits of the source.

A docstring's "Errors:" section is what Google style calls "Raises:", and a function may bear the name of its file:
then a package that imports it means the function.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^Errors:$", re.MULTILINE)
_SOURCE = re.compile(r"^Source: ", re.MULTILINE)


class ErrorsAreRaises(griffe.Extension):
    """Renames the section before the docstring is parsed; the source line keeps its own paragraph."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = _SOURCE.sub("**Source:** ", _SECTION.sub("Raises:", obj.docstring.value))


class FunctionsBeforeFiles(griffe.Extension):
    """Puts a function in the place of the module of its name where the package imports it; the rest is found below."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Go through a package and all below it."""
        functions: dict[str, griffe.Function] = {}
        modules = _prefer_functions(pkg, functions)
        for module in modules:
            for alias in module.members.values():
                if isinstance(alias, griffe.Alias) and alias.target_path in functions:
                    alias.target = functions[alias.target_path]  # it may have found the module already


def _prefer_functions(package: griffe.Module, functions: dict[str, griffe.Function]) -> list[griffe.Module]:
    """Change a package, note its functions by their new paths, and return all modules."""
    modules = [package]
    for name, module in list(package.members.items()):
        if not isinstance(module, griffe.Module):  # to ask an alias what it is would resolve it
            continue
        modules += _prefer_functions(module, functions)
        function = module.members.get(name)
        if name in package.imports and isinstance(function, griffe.Function):
            functions[module.path] = function
            function.members.update(module.members | {name: griffe.Alias(name, function, parent=package)})
            package.members[name] = function
            function.parent = package
    return modules
