"""The layering test: a room includes only itself and the rooms downhill of it.

Called by meson as layering.py ROOT. Prints each line that breaks the rule, then a line that tests/run adds up."""

import pathlib
import re
import sys

DOWNHILL = {
    'autodiff': [],
    'gpu': ['autodiff'],
    'distributions': ['autodiff'],
    'ppl': ['distributions', 'autodiff'],
    'models': ['ppl', 'distributions', 'autodiff'],
    'examples': ['models', 'ppl', 'distributions', 'autodiff'],
    'tests': ['examples', 'models', 'ppl', 'distributions', 'autodiff', 'gpu'],
}
SOURCES = {'.c', '.h', '.cc', '.cpp', '.cu', '.def', '.inc'}
INCLUDE = re.compile(r'\s*#\s*include\s*["<]([^">]+)[">]')


def offence(room, target):
    """What is wrong with an include of target by a file of room, or None."""
    if '..' in target.split('/'):
        return 'climbs out of its folder'
    first = target.split('/')[0]
    if first in DOWNHILL and '/' in target and first not in [room] + DOWNHILL[room]:
        return f'{room} may not include {first}'
    return None


def main(root):
    passed = failed = 0
    for room in DOWNHILL:
        for path in sorted((root / room).rglob('*')):
            if path.suffix not in SOURCES or not path.is_file():
                continue
            bad = 0
            for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
                match = INCLUDE.match(line)
                wrong = offence(room, match[1]) if match else None
                if wrong:
                    print(f'{path.relative_to(root)}:{number}: {line.strip()}  ({wrong})')
                    bad = 1
            passed, failed = passed + 1 - bad, failed + bad
    print(f'layering: {passed} passed, {failed} failed, 0 skipped')
    return 1 if failed or not passed else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
