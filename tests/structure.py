"""The structure test: what the tree's shape promises, beside layering.py's includes.

Called by meson as structure.py ROOT LIBRARY. LIBRARY is the static one, whose symbols tell which file calls which.
  cycles    the files of the rooms and shelves in ACYCLIC do not call each other in circles
  comments  every file that a comment names exists
Prints each offence, then a line that tests/run adds up."""

import collections
import pathlib
import re
import subprocess
import sys

ROOMS = ['autodiff', 'distributions', 'ppl', 'models', 'examples', 'gpu', 'tests']
SOURCES = {'.c', '.h', '.cc', '.cpp', '.cu', '.def', '.inc'}
ACYCLIC = ['autodiff/plan']
# Source files of other projects that comments cite: Pyro's and fdlibm's.
FOREIGN = re.compile(r'poutine/\w+\.py|trace_elbo\.py|trace_mean_field_elbo\.py|clipped_adam\.py|constraint_registry\.py|e_log\.c')
COMMENT = re.compile(r'/\*.*?\*/', re.DOTALL)
NAME = re.compile(r'(?<![\w./<])((?:\w+/)*\w+\.(?:c|h|cc|cpp|cu|def|inc|py))\b(?!\w|\()')


def sources(root):
    for room in ROOMS:
        for path in sorted((root / room).rglob('*')):
            if path.suffix in SOURCES and path.is_file():
                yield path


def calls(root, library):
    """source -> the sources that it calls, by the symbols of the library's objects."""
    listing = subprocess.run(['nm', library], check=True, capture_output=True, text=True).stdout
    defined, wanted, member = {}, collections.defaultdict(set), None
    # Meson flattens a path into the object's name: autodiff/plan/run.c is autodiff_plan_run.c.o
    known = {str(p.relative_to(root)).replace('/', '_'): str(p.relative_to(root)) for p in sources(root)}
    for line in listing.splitlines():
        if line.endswith(':'):
            member = known.get(line[:-1].removesuffix('.o'))
        elif member and line.split():
            *_, kind, symbol = line.split()
            if kind == 'U':
                wanted[member].add(symbol)
            elif kind in 'TDBRV':
                defined[symbol] = member
    return {a: {defined[s] for s in symbols if s in defined} - {a} for a, symbols in wanted.items()}


def circles(graph):
    """The sets of files that reach each other (Tarjan's strongly connected components)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in graph.get(v, ()):
            if w not in index:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == index[v]:
            circle = {stack.pop()}
            while v not in circle:
                circle.add(stack.pop())
            if len(circle) > 1:
                found.append(circle)

    for v in sorted(graph):
        if v not in index:
            visit(v)
    return found


def cycles(root, library):
    graph = calls(root, library)
    if not graph:
        yield f'{library} has no object of a known source'
    for shelf in ACYCLIC:
        inside = {a: {b for b in to if b.startswith(shelf + '/')} for a, to in graph.items() if a.startswith(shelf + '/')}
        for circle in circles(inside):
            arrows = [f'{a} -> {b}' for a in sorted(circle) for b in sorted(inside[a] & circle)]
            yield f'{shelf}: files call each other in a circle: ' + ', '.join(arrows)


def comments(root):
    """Files that a comment names and that are not there. A name counts as found where a path of the tree ends in it."""
    paths = [str(p.relative_to(root)) for room in ROOMS for p in (root / room).rglob('*') if p.is_file()]
    ends = {path[i:] for path in paths for i in [0] + [m.end() for m in re.finditer('/', path)]}
    ends.add('masks.h')
    for path in sources(root):
        for comment in COMMENT.finditer(path.read_text(encoding='utf-8')):
            for name in NAME.findall(comment[0]):
                if name not in ends and 'NAME' not in name and not FOREIGN.fullmatch(name):
                    yield f'{path.relative_to(root)}: a comment names {name}, which does not exist'


def main(root, library):
    passed = failed = 0
    for offences in (cycles(root, library), comments(root)):
        found = list(offences)
        print('\n'.join(found), end='\n' if found else '')
        passed, failed = passed + (not found), failed + bool(found)
    print(f'structure: {passed} passed, {failed} failed, 0 skipped')
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
