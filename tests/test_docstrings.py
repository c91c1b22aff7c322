"""Every public module, class, function and method says what it is."""

import ast
from pathlib import Path

import workbench

PACKAGE = Path(workbench.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def undocumented(tree, name):
    """Dotted names of the public definitions without a docstring."""
    if not ast.get_docstring(tree):
        yield name
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, f"{name}.{node.name}")
            elif not ast.get_docstring(node):
                yield f"{name}.{node.name}"


def test_everything_public_has_a_docstring():
    texts = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file.read_text("utf-8") for file in FILES}
    assert [each for name, text in texts.items() if text for each in undocumented(ast.parse(text), name)] == []


def test_the_check_sees_what_is_missing():
    tree = ast.parse('"""M."""\nclass A:\n    def b(self): ...\n    def _c(self): ...\ndef d():\n    """D."""\n')
    assert list(undocumented(tree, "m")) == ["m.A", "m.A.b"]
