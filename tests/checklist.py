"""Which tests cover which item of the conformance checklist.

``python tests/checklist.py [FIRST LAST]`` prints them.

Read from the marker ``contract`` in the sources, so that it needs no engine and no GPU. What a run
has really covered is printed at its end.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent


def covered() -> dict[int, list[str]]:
    """Tests, ``file::name``, by the items that they cover."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _items(node):
                    found[number].append(f"{path.relative_to(TESTS)}::{node.name}")
    return dict(found)


def _items(test: ast.FunctionDef | ast.AsyncFunctionDef) -> list[int]:
    return [
        argument.value
        for mark in test.decorator_list
        if isinstance(mark, ast.Call)
        and isinstance(mark.func, ast.Attribute)
        and mark.func.attr == "contract"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    ]


def main() -> None:
    tests = covered()
    first, last = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (1, max(tests))
    for number in range(first, last + 1):
        print(f"{number}. {', '.join(tests.get(number, ['no test']))}")


if __name__ == "__main__":
    main()
