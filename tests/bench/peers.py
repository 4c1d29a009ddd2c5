#!/usr/bin/env python3
"""Times Taper and its peers on the same work, in alternation, and writes one Markdown table of ratios.

Installs nothing. The peers live in a virtual environment, made once by
    python3 -m venv VENV && VENV/bin/pip install torch pyro-ppl 'jax[cpu]' numpyro
and run by its interpreter: VENV/bin/python tests/bench/peers.py --bench build/tests/bench/bench --data MNIST
On a GPU (--device cuda) all use it, with products in FP32, and larger minibatches are among the work.

Every contestant is a process that measures itself when asked; those whose turn it is not are stopped, so that no thread
spins in the background. A ratio is the median, over rounds, of the ratio within a round: the machine's drift cancels."""

import argparse
import datetime
import fnmatch
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

from contest import Contestant, rows_of

HERE = pathlib.Path(__file__).resolve().parent
PEERS = ['pyro', 'pyro_jit', 'torch', 'numpyro', 'numpyro_scan']
TITLES = {'pyro': 'Pyro', 'pyro_jit': 'Pyro, JitTrace_ELBO', 'torch': 'PyTorch by hand', 'numpyro': 'NumPyro, jitted',
          'numpyro_scan': 'NumPyro, lax.scan'}
WORK = [('vae_step/256', 1), ('vae_step/256', 2), ('vae_step/4096', 1), ('vae_step/4096', 2), ('vae_step/1', 1),
        ('regression', 1), ('schools', 1), ('chain', 1)]
GPU_WORK = [('regression', 1)] + [(f'vae_step/{batch}', 1) for batch in (256, 4096, 16384, 65536)]
MAY_RUN = {'regression': 'svi_run/regression', 'schools': 'svi_run/schools', 'chain': 'svi_run/chain'}


class Program:
    """The hand-written regression, which measures itself at every run."""

    def __init__(self, path):
        self.path = path

    def ask(self, _):
        out = subprocess.run([self.path], check=True, capture_output=True, text=True).stdout
        return float(re.search(r'median ([0-9.]+) ns', out)[1]) / 1e3

    def end(self):
        pass


def contestants(o, work, threads, rows):
    """Name -> contestant, Taper first. One-thread steps of the autoencoder stay on one core, and so do all their peers."""
    environment = dict(os.environ, PEER_THREADS=str(threads), OMP_NUM_THREADS=str(threads), THREADS=str(threads),
                       PEER_DEVICE=o.device, TAPER_DEVICE=o.device)
    cores = {0} if threads == 1 and work.startswith('vae') and o.device == 'cpu' else None
    taper = [o.bench, '--serve', f'--threads={threads}'] + ([f'--data={o.data}'] if o.data else [])
    found = {'taper': Contestant(taper + [f'--filter={work}'], environment, cores=cores)}
    if MAY_RUN.get(work) in rows:
        found['taper_run'] = Contestant(taper + [f'--filter={MAY_RUN[work]}'], environment, cores=cores)
    if o.floor and work == 'vae_step/256':
        found['floor'] = Contestant([o.floor, 'serve'], dict(environment, MNIST_DIR=o.data or ''), scale=1e3, greets=False)
    if o.blr and work == 'regression':
        found['floor'] = Program(o.blr)
    for peer in o.peers:
        command = [sys.executable, '-W', 'ignore', str(HERE / 'peer_models.py'), peer, work, o.data or '-']
        try:
            found[peer] = Contestant(command, environment, cores=cores)
        except RuntimeError as why:  # the table has a dash there
            print(why, file=sys.stderr)
    return found


def compete(o, work, threads, rows):
    """Name -> microseconds in each round."""
    times = {}
    running = {}
    try:
        running = contestants(o, work, threads, rows)
        for _ in range(o.rounds):
            for name, contestant in running.items():
                times.setdefault(name, []).append(contestant.ask(o.samples))
    finally:
        for contestant in running.values():
            contestant.end()
    return times


def ratio(times, over, under):
    """The median over rounds, or a dash where one did not run."""
    if over not in times or under not in times:
        return '-'
    median = statistics.median(a / b for a, b in zip(times[over], times[under]))
    return f'{median:.2f}' if median < 20 else f'{median:.0f}'


def microseconds(times, name):
    if name not in times:
        return '-'
    median = statistics.median(times[name])
    return f'{median:.1f}' if median < 100 else f'{median:.0f}'


def machine(o):
    """What the figures hold for, as a Markdown list."""
    info = pathlib.Path('/proc/cpuinfo').read_text() if pathlib.Path('/proc/cpuinfo').exists() else ''
    field = lambda name: (re.search(rf'^{name}\s*: (.*)$', info, re.M) or [None, '?'])[1]
    flags = set(field('flags').split())
    isa = ', '.join(f for f in ('avx2', 'fma', 'avx512f', 'avx512bw', 'amx_tile') if f in flags) or platform.machine()
    said = subprocess.run([o.bench, '--filter=ceiling/fma', '--repeat=3', '--threads=2'], capture_output=True,
                          text=True, env=dict(os.environ, TAPER_DEVICE=o.device))
    versions = [f'{p} {metadata.version(p)}' for p in ('torch', 'pyro-ppl', 'jax', 'jaxlib', 'numpyro', 'numpy')
                if o.peers and find_spec(p.replace('pyro-ppl', 'pyro'))]
    load = f'{os.getloadavg()[0]:.1f}'
    return '\n'.join([
        f'- date: {datetime.date.today()}; load before the runs: {load}',
        f'- machine: {field("model name")} (family {field("cpu family")}, model {field("model")}), '
        f'{len(os.sched_getaffinity(0))} cores, {isa}',
        f'- Taper: {said.stderr.strip().removeprefix("bench: ")}',
        f'- peers: {", ".join(versions) or "none"}; Python {platform.python_version()}',
        f'- {o.rounds} rounds of {o.samples} samples each, every contestant alone while it is measured'])


def table(o, results):
    columns = ['work', 'threads', 'Taper, us', 'Taper / by hand']
    columns += [f'{TITLES[p]} / Taper' for p in o.peers]
    runs = any('taper_run' in times for times in results.values())
    columns += ['svi_run, us', 'svi_run / by hand', 'NumPyro, lax.scan / svi_run'] if runs else []
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    for (work, threads), times in results.items():
        cells = [work, str(threads), microseconds(times, 'taper'), ratio(times, 'taper', 'floor')]
        cells += [ratio(times, p, 'taper') for p in o.peers]
        if runs:
            cells += [microseconds(times, 'taper_run'), ratio(times, 'taper_run', 'floor'),
                      ratio(times, 'numpyro_scan', 'taper_run')]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--bench', required=True, help='the program build/tests/bench/bench')
    p.add_argument('--data', help="MNIST's folder (default: drawn digits, and noise for the peers)")
    p.add_argument('--floor', help='a hand-written step that answers as `PATH serve` (ms; batch 256; needs --data)')
    p.add_argument('--blr', help='a hand-written regression that prints "median T ns/step"')
    p.add_argument('--peers', default=','.join(PEERS), help='which of them, by commas (default: %(default)s)')
    p.add_argument('--device', default='cpu', choices=['cpu', 'cuda'], help='where all compute (default: %(default)s)')
    p.add_argument('--work', default='*', help='pattern of what to run (default: all)')
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--samples', type=int, default=15, help='measured by each contestant in a round')
    p.add_argument('--out', help='file for the report (default: standard output)')
    o = p.parse_args()
    o.peers = [peer for peer in o.peers.split(',') if peer]
    for peer in o.peers:
        if peer not in PEERS:
            p.error(f'no peer is called {peer}; there are {", ".join(PEERS)}')

    head, rows, results = machine(o), rows_of(o.bench), {}
    for work, threads in GPU_WORK if o.device == 'cuda' else WORK:
        if fnmatch.fnmatch(work, o.work):
            results[work, threads] = compete(o, work, threads, rows)
            print(work, threads, {n: round(statistics.median(t), 2) for n, t in results[work, threads].items()},
                  file=sys.stderr, flush=True)
    report = f'{head}\n\n{table(o, results)}\n'
    if o.out:
        pathlib.Path(o.out).write_text(report, encoding='utf-8')
    else:
        print(report, end='')


if __name__ == '__main__':
    main()
