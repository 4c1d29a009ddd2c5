#!/usr/bin/env python3
"""The golden losses: the first steps of the examples and of the benchmark's models, compared with tests/golden/losses.txt.

Called by meson as losses.py GOLDEN LISTENER BENCH EXAMPLE...; --write before these writes the file instead, which is
what `ninja -C build golden-losses` does. Only a commit that says which losses it moves, and why, makes it anew.

On the instruction set that the file names the losses must be equal to the bit. On another one sums of products differ by
rounding: then the first hundred steps must agree within 1e-5 in float and 1e-12 in double, and later ones are not
compared. Prints what differs, then a line that tests/run adds up."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

BENCH = ['vae_step/256', 'regression', 'schools', 'chain']
BENCH_TELLS = [1, 2, 3, 5, 10, 20, 50, 100]
TOLERANCE = {'float': 1e-5, 'double': 1e-12}
FIRST = 100


def instruction_set(description):
    return re.search(r'(\w+) kernels', description)[1]


def of_example(program, listener):
    """(precision, instruction set, {step: loss}) of a program that listen.c hears."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'losses'
        environment = dict(os.environ, LD_PRELOAD=listener, TAPER_LOSSES=str(path), TAPER_DEVICE='cpu')
        subprocess.run([program], check=True, stdout=subprocess.DEVNULL, env=environment, timeout=240)
        head, *lines = path.read_text().splitlines()
    precision, description = head.split(' ', 1)
    return precision, instruction_set(description), {int(n): float.fromhex(x) for n, x in map(str.split, lines)}


def of_bench(bench, row):
    run = subprocess.run([bench, f'--losses={FIRST}', f'--filter={row}'], check=True, capture_output=True, text=True,
                         env=dict(os.environ, TAPER_DEVICE='cpu'), timeout=240)
    lines = (line.split() for line in run.stdout.splitlines())
    losses = {int(n): float.fromhex(x) for _, n, x in lines}
    return 'float', instruction_set(run.stderr), {n: losses[n] for n in BENCH_TELLS}


def measure(listener, bench, examples):
    """name -> (precision, instruction set, {step: loss})"""
    found = {pathlib.Path(program).name: of_example(program, listener) for program in examples}
    return found | {row: of_bench(bench, row) for row in BENCH}


def write(path, found):
    sets = {isa for _, isa, _ in found.values()}
    lines = ['# Written by losses.py --write: instruction set; then work, precision, step, loss.', sets.pop()]
    lines += [f'{name} {precision} {n} {x.hex()}'
              for name, (precision, _, losses) in found.items() for n, x in losses.items()]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def read(path):
    """(instruction set, name -> {step: loss})"""
    golden = {}
    isa, *lines = [line for line in path.read_text(encoding='utf-8').splitlines() if not line.startswith('#')]
    for name, _, n, x in map(str.split, lines):
        golden.setdefault(name, {})[int(n)] = float.fromhex(x)
    return isa, golden


def differences(want, have, tolerance):
    """The steps whose losses differ; tolerance 0 wants equal bits, and then all steps are looked at."""
    if want.keys() != have.keys():
        return [f'steps {sorted(have)} instead of {sorted(want)}']
    return [f'step {n}: {have[n]!r}, golden {x!r}, relative difference {abs(have[n] / x - 1):.2g}'
            for n, x in want.items() if (n <= FIRST or not tolerance) and not abs(have[n] - x) <= tolerance * abs(x)]


def main(arguments):
    writing = arguments[0] == '--write'
    path, listener, bench, *examples = arguments[writing:]
    found = measure(os.path.abspath(listener), bench, examples)
    if writing:
        write(pathlib.Path(path), found)
        return 0
    passed = failed = 0
    golden_set, golden = read(pathlib.Path(path))
    for name, (precision, isa, losses) in found.items():
        tolerance = 0 if isa == golden_set else TOLERANCE[precision]
        wrong = differences(golden.get(name, {}), losses, tolerance)
        for line in wrong:
            print(f'{name} ({precision}, {isa}; the golden ones are {golden_set}): {line}')
        passed, failed = passed + (not wrong), failed + bool(wrong)
    missing = golden.keys() - found.keys()
    for name in missing:
        print(f'{name} is in the golden file alone')
    failed += len(missing)
    if failed:
        print('where these were moved on purpose: ninja -C build golden-losses, and say in the commit which and why')
    print(f'losses: {passed} passed, {failed} failed, 0 skipped')
    return 1 if failed or not passed else 0


sys.exit(main(sys.argv[1:]))
