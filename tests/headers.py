"""The header test: every public header compiles alone, without a warning, as C11 and as C++17.

Called by meson as headers.py ROOT BUILD HEADER... Uses those of gcc, clang and g++ that are there; prints the
compiler's words on failure, then a line that tests/run adds up."""

import os
import shutil
import subprocess
import sys

COMPILERS = [
    ('gcc', 'c', 'c11'),
    ('clang', 'c', 'c11'),
    ('g++', 'c++', 'c++17'),
]
WARNINGS = ['-Wall', '-Wextra', '-Wpedantic', '-Werror']


def main(root, build, headers):
    compilers = [c for c in COMPILERS if shutil.which(c[0])]
    names = [os.path.relpath(h, root) for h in headers if h.endswith('.h')]
    passed = failed = 0
    for name in names:
        for compiler, language, standard in compilers:
            command = [compiler, '-x', language, '-std=' + standard, *WARNINGS, '-I', root, '-I', build,
                       '-fsyntax-only', '-']
            # Twice, for the include guard; the declaration, as an empty unit is itself a pedantic warning.
            text = f'#include <{name}>\n#include <{name}>\nextern int unit;\n'
            result = subprocess.run(command, input=text, stderr=subprocess.PIPE, text=True)
            if result.returncode == 0:
                passed += 1
            else:
                failed += 1
                print(f'{name} fails with {compiler} -std={standard}:\n{result.stderr}')
    print(f'headers: {passed} passed, {failed} failed, 0 skipped')
    return 1 if failed or not passed else 0


sys.exit(main(*(os.path.abspath(p) for p in sys.argv[1:3]), [os.path.abspath(h) for h in sys.argv[3:]]))
