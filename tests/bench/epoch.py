#!/usr/bin/env python3
"""Lets epochs of vae_mnist and of the hand-written autoencoder alternate on the same data, and writes their ratios.

    tests/bench/epoch.py --build build --data MNIST --floor PATH [--threads 1 2] [--rounds 5]

Each round trains one epoch with `build/examples/vae_mnist` and one with `PATH train 1` (which prints "epoch_s SECONDS"),
and times 235 single steps with `build/tests/bench/bench`: an epoch's steps without shuffling, conversion and the test
set. Reported are medians over rounds of ratios within a round, and the peak resident memory of vae_mnist."""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

STEPS = 235  # minibatches of 256 in 60,000 images, the last one of 96


def train(o, threads, folder):
    """Seconds of the training part of one epoch, and the peak resident memory in megabytes."""
    log = pathlib.Path(folder) / 'log.jsonl'
    child = subprocess.Popen([o.build / 'examples' / 'vae_mnist', '--quiet', f'--data={o.data}', '--epochs=1',
                              f'--log={log}', f'--threads={threads}', f'--out={folder}'], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f'vae_mnist ended with {child.returncode}')
    return json.loads(log.read_text().splitlines()[0])['train_seconds'], usage.ru_maxrss / 1024


def by_hand(o, threads):
    out = subprocess.run([o.floor, 'train', '1'], check=True, capture_output=True, text=True,
                         env=dict(os.environ, MNIST_DIR=str(o.data), THREADS=str(threads))).stdout
    return float(re.search(r'epoch_s ([0-9.]+)', out)[1])


def steps_alone(o, threads):
    out = subprocess.run([o.build / 'tests' / 'bench' / 'bench', '--filter=vae_step/256', f'--threads={threads}',
                          f'--repeat={STEPS}', f'--data={o.data}'], check=True, capture_output=True, text=True).stdout
    return json.loads(out)['median_us'] * 1e-6 * STEPS


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--build', type=pathlib.Path, required=True)
    p.add_argument('--data', type=pathlib.Path, required=True)
    p.add_argument('--floor', required=True)
    p.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    p.add_argument('--rounds', type=int, default=5)
    o = p.parse_args()
    print('| threads | epoch, s | epoch / by hand | epoch / its steps | peak MB |\n|---|---|---|---|---|')
    for threads in o.threads:
        epochs, ratios, overheads, peaks = [], [], [], []
        for _ in range(o.rounds):
            with tempfile.TemporaryDirectory() as folder:
                seconds, peak = train(o, threads, folder)
            epochs.append(seconds)
            peaks.append(peak)
            ratios.append(seconds / by_hand(o, threads))
            overheads.append(seconds / steps_alone(o, threads))
        print(f'| {threads} | {statistics.median(epochs):.2f} | {statistics.median(ratios):.2f} '
              f'| {statistics.median(overheads):.2f} | {max(peaks):.0f} |', flush=True)


if __name__ == '__main__':
    main()
