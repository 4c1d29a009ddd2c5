"""Processes that measure themselves when asked, for peers.py and against: only the one whose turn it is runs."""

import math
import os
import signal
import statistics
import subprocess


class Contestant:
    """A process that answers a line N with a number, the median of N samples."""

    def __init__(self, command, environment, scale=1.0, cores=None, greets=True):
        self.scale = scale
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None)
        if greets and self.process.stdout.readline().strip() != 'ready':
            self.end()
            raise RuntimeError('it did not start: ' + ' '.join(map(str, command)))
        self.stop()

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, samples):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f'{samples}\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        self.stop()
        return float(answer) * self.scale

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def rows_of(bench):
    """The names of a benchmark program's rows."""
    return subprocess.run([bench, '--list'], check=True, capture_output=True, text=True).stdout.split()


def median_interval(values, chance=0.95):
    """(low, median, high): the order statistics that hold the true median with at least this chance, whatever the
    distribution (binomial; David and Nagaraja 2003, section 7.1)."""
    x, n = sorted(values), len(values)
    outside, k = 0.0, 0
    while k < n // 2 and 2 * (outside + math.comb(n, k) * 0.5 ** n) <= 1 - chance:
        outside += math.comb(n, k) * 0.5 ** n
        k += 1
    k = max(k - 1, 0)
    return x[k], statistics.median(x), x[n - 1 - k]
