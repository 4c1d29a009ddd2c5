"""Runs the examples and checks that what they fit agrees with the truth they print beside it.

Called by meson as examples.py PROGRAM... Prints what disagrees, then a line that tests/run adds up."""

import pathlib
import re
import subprocess
import sys

NUMBER = re.compile(r'(?<![\w.\[])-?\d+(?:\.\d+)?(?![\w\]])')
LOC, SD = 0.15, 0.15  # how far means and standard deviations may be off, in true standard deviations

# Of each program: how a row begins, how many rows there are, and which of a row's numbers are compared: the fitted one,
# the true one, the standard deviation that measures their distance, and how far apart they may be.
TABLE = {
    'coin': (r'fairness, fitted.*\n +fairness, exactly', 1, [(0, 2, 3, LOC), (1, 3, 3, SD)]),
    'eight_schools': (r'([A-H]|mu|log tau) ', 10, [(0, 2, 3, LOC), (1, 3, 3, SD)]),
    'linear_regression': (r'(w\[\d\]|b) ', 4, [(0, 2, 3, LOC), (1, 3, 3, SD)]),
    'logistic_regression': (r'w\[\d\] ', 4, [(1, 3, 4, LOC), (2, 4, 4, SD), (1, 0, 4, 4)]),
    'minimal': (r'mean = ', 1, [(0, 2, 3, LOC), (1, 3, 3, SD)]),
}


def disagreements(name, output):
    """What is wrong with the output of a program, a line each."""
    start, count, pairs = TABLE[name]
    rows = [row.group() for row in re.finditer(f'^ *{start}.*$', output, re.MULTILINE)]
    if len(rows) != count:
        return [f'{len(rows)} rows of numbers instead of {count}']
    wrong = []
    for row in rows:
        x = [float(number) for number in NUMBER.findall(row)]
        for fitted, true, unit, most in pairs:
            if not abs(x[fitted] - x[true]) <= most * x[unit]:  # a NaN disagrees
                wrong.append(f'{x[fitted]} beside {x[true]} in: {row.strip()}')
    return wrong


def main(programs):
    passed = failed = 0
    for program in programs:
        name = pathlib.Path(program).name
        run = subprocess.run([program], capture_output=True, text=True, timeout=240, check=False)
        wrong = [f'exit status {run.returncode}', run.stderr] if run.returncode else disagreements(name, run.stdout)
        for line in wrong:
            print(f'{name}: {line}')
        passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f'examples: {passed} passed, {failed} failed, 0 skipped')
    return 1 if failed or not passed else 0


sys.exit(main(sys.argv[1:]))
