"""The work of models.c in other libraries, each as well as it can be written there. Started by peers.py as
    peer_models.py LIBRARY WORK DATA
it writes "ready" and then, for each line N on standard input, the median of N samples in microseconds per step.

LIBRARY: torch (the same estimator by hand), pyro, pyro_jit, numpyro (one jitted update per step), numpyro_scan
(updates inside lax.scan). WORK: vae_step/BATCH, regression, schools, chain. DATA: MNIST's folder, or - for noise.
The number of threads comes in PEER_THREADS, the device, cpu or cuda, in PEER_DEVICE; every update's loss is read, as
svi_step returns it (lax.scan: at its end)."""

import gzip
import math
import os
import pathlib
import statistics
import sys
import time

import numpy as np

PIXELS, HIDDEN, LATENT, ROWS, SCHOOLS, CHAIN = 784, 400, 50, 170, 8, 10
EFFECT = np.array([28, 8, -3, 7, -1, 1, 18, 12], np.float32)
ERROR = np.array([15, 10, 16, 11, 9, 11, 10, 18], np.float32)
LR = {'vae_step': 1e-3}
SMALL_LR = 0.005
DEVICE = os.environ.get('PEER_DEVICE', 'cpu')


def digits(folder, batch):
    """Minibatches (n, batch, 784), as many as models.c uses."""
    n = 1 if batch > 4096 else 3 if batch > 256 else 40
    if folder == '-':
        noise = np.random.default_rng(0).random((n * batch, PIXELS), np.float32)
        return np.maximum(noise * 2 - 1, 0).reshape(n, batch, PIXELS)
    raw = gzip.decompress((pathlib.Path(folder) / 'train-images-idx3-ubyte.gz').read_bytes())
    images = np.resize(np.frombuffer(raw, np.uint8, offset=16), n * batch * PIXELS)  # again from the start if too few
    return (images.astype(np.float32) / 255).reshape(n, batch, PIXELS)


def regression_data():
    i, j = np.arange(ROWS)[:, None], np.arange(3)[None, :]
    x = np.sin(1 + 12.9898 * i + 78.233 * j) * 1.4
    y = x @ [1, -2, 0.5] + 0.3 + 0.4 * np.sin(37.719 * i[:, 0])
    return x.astype(np.float32), y.astype(np.float32)


def torch_on_device():
    """The module, and what makes a tensor there of an array."""
    import torch
    torch.set_num_threads(int(os.environ['PEER_THREADS']))
    if DEVICE == 'cuda':
        torch.set_default_tensor_type(torch.cuda.FloatTensor)  # set_default_device would cost something at every call
    return torch, lambda array: torch.from_numpy(array).to(DEVICE)


# ---- plain PyTorch: the estimator that Trace_ELBO makes, by hand -----------------------------------------------------

def torch_work(work, batch, data):
    torch, tensor = torch_on_device()
    from torch.nn import functional as F
    half_log_2pi = 0.5 * math.log(2 * math.pi)

    def log_normal(x, loc, scale):
        return (-0.5 * ((x - loc) / scale) ** 2 - torch.log(scale) - half_log_2pi).sum()

    def free(*shape):
        loc = torch.zeros(shape, requires_grad=True)
        log_scale = torch.full(shape, math.log(0.1), requires_grad=True)
        return loc, log_scale

    def draw(q):
        """A draw of a mean-field Normal and its log-density."""
        eps = torch.randn_like(q[0])
        return q[0] + torch.exp(q[1]) * eps, (-0.5 * eps * eps - q[1] - half_log_2pi).sum()

    one = torch.tensor(1.)
    if work == 'vae_step':
        batches = tensor(digits(data, batch))
        fc1, fc2 = torch.nn.Linear(PIXELS, HIDDEN), torch.nn.Linear(HIDDEN, 2 * LATENT)
        fc3, fc4 = torch.nn.Linear(LATENT, HIDDEN), torch.nn.Linear(HIDDEN, PIXELS)
        parameters = [p for layer in (fc1, fc2, fc3, fc4) for p in layer.parameters()]

        def loss(i):
            x = batches[i % len(batches)]
            loc, log_scale = fc2(F.softplus(fc1(x))).chunk(2, -1)
            eps = torch.randn_like(loc)
            z = loc + torch.exp(log_scale) * eps
            logits = fc4(F.softplus(fc3(z)))
            divergence = (0.5 * z * z - 0.5 * eps * eps - log_scale).sum()
            return F.binary_cross_entropy_with_logits(logits, x, reduction='sum') + divergence
    elif work == 'regression':
        x, y = map(tensor, regression_data())
        qw, qb, qs = free(3), free(), free()
        parameters = [*qw, *qb, *qs]

        def loss(_):
            (w, lw), (b, lb), (s, ls) = draw(qw), draw(qb), draw(qs)
            sigma = torch.exp(s)
            return (lw + lb + ls - log_normal(w, 0, one) - log_normal(b, 0, 10 * one) - log_normal(s, 0, one)
                    - log_normal(y, x @ w + b, sigma.expand(ROWS)))
    elif work == 'schools':
        effect, error = tensor(EFFECT), tensor(ERROR)
        qm, qt, qr = free(), free(), free(SCHOOLS)
        parameters = [*qm, *qt, *qr]

        def loss(_):
            (m, lm), (t, lt), (r, lr) = draw(qm), draw(qt), draw(qr)
            return (lm + lt + lr - log_normal(m, 0, 5 * one) - log_normal(t, 0, one) - log_normal(r, 0, one)
                    - log_normal(effect, m + torch.exp(t) * r, error))
    else:
        q = [free() for _ in range(CHAIN)]
        parameters = [p for pair in q for p in pair]

        def loss(_):
            total, before = 0., 0.
            for pair in q:
                z, lz = draw(pair)
                total = total + lz - log_normal(z, before, one)
                before = z
            return total

    adam = torch.optim.Adam(parameters, lr=LR.get(work, SMALL_LR), fused=True)
    count = [0]

    def run(n):
        for _ in range(n):
            adam.zero_grad(set_to_none=True)
            value = loss(count[0])
            value.backward()
            adam.step()
            value.item()
            count[0] += 1
    return run


# ---- Pyro ------------------------------------------------------------------------------------------------------------

def pyro_work(work, batch, data, jit):
    import pyro
    import pyro.distributions as dist
    torch, tensor = torch_on_device()
    from torch.distributions import constraints
    pyro.enable_validation(False)
    torch.distributions.Distribution.set_default_validate_args(False)
    positive = constraints.positive

    def free(name, *shape):
        return dist.Normal(pyro.param(name + '_loc', lambda: torch.zeros(shape)),
                           pyro.param(name + '_scale', lambda: torch.full(shape, 0.1), constraint=positive))

    def log_normal(name):
        return dist.LogNormal(pyro.param(name + '_loc', lambda: torch.tensor(0.)),
                              pyro.param(name + '_scale', lambda: torch.tensor(0.1), constraint=positive))

    if work == 'vae_step':
        batches = [(x,) for x in tensor(digits(data, batch))]
        softplus = torch.nn.Softplus()

        class Encoder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.fc21 = torch.nn.Linear(PIXELS, HIDDEN), torch.nn.Linear(HIDDEN, LATENT)
                self.fc22 = torch.nn.Linear(HIDDEN, LATENT)

            def forward(self, x):
                h = softplus(self.fc1(x))
                return self.fc21(h), torch.exp(self.fc22(h))

        class Decoder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.fc21 = torch.nn.Linear(LATENT, HIDDEN), torch.nn.Linear(HIDDEN, PIXELS)

            def forward(self, z):
                return torch.sigmoid(self.fc21(softplus(self.fc1(z))))

        encoder, decoder = Encoder(), Decoder()

        def model(x):
            pyro.module('decoder', decoder)
            with pyro.plate('data', x.shape[0]):
                z = pyro.sample('latent', dist.Normal(x.new_zeros(x.shape[0], LATENT),
                                                      x.new_ones(x.shape[0], LATENT)).to_event(1))
                pyro.sample('obs', dist.Bernoulli(decoder(z)).to_event(1), obs=x)

        def guide(x):
            pyro.module('encoder', encoder)
            with pyro.plate('data', x.shape[0]):
                pyro.sample('latent', dist.Normal(*encoder(x)).to_event(1))
    elif work == 'regression':
        batches = [tuple(map(tensor, regression_data()))]

        def model(x, y):
            w = pyro.sample('w', dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1))
            b = pyro.sample('b', dist.Normal(0., 10.))
            sigma = pyro.sample('sigma', dist.LogNormal(0., 1.))
            with pyro.plate('rows', ROWS):
                pyro.sample('y', dist.Normal(x @ w + b, sigma), obs=y)

        def guide(x, y):
            pyro.sample('w', free('w', 3).to_event(1))
            pyro.sample('b', free('b'))
            pyro.sample('sigma', log_normal('sigma'))
    elif work == 'schools':
        batches = [(tensor(EFFECT), tensor(ERROR))]

        def model(effect, error):
            mu, tau = pyro.sample('mu', dist.Normal(0., 5.)), pyro.sample('log_tau', dist.Normal(0., 1.)).exp()
            with pyro.plate('schools', SCHOOLS):
                raw = pyro.sample('raw', dist.Normal(0., 1.))
                pyro.sample('effect', dist.Normal(mu + tau * raw, error), obs=effect)

        def guide(effect, error):
            pyro.sample('mu', free('mu'))
            pyro.sample('log_tau', free('log_tau'))
            with pyro.plate('schools', SCHOOLS):
                pyro.sample('raw', free('raw', SCHOOLS))
    else:
        batches = [()]

        def model():
            z = torch.tensor(0.)
            for i in range(CHAIN):
                z = pyro.sample(f'z{i}', dist.Normal(z, 1.))

        def guide():
            for i in range(CHAIN):
                pyro.sample(f'z{i}', free(f'z{i}'))

    elbo = (pyro.infer.JitTrace_ELBO if jit else pyro.infer.Trace_ELBO)()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({'lr': LR.get(work, SMALL_LR)}), elbo)
    count = [0]

    def run(n):
        for _ in range(n):
            svi.step(*batches[count[0] % len(batches)])
            count[0] += 1
    return run


# ---- NumPyro ---------------------------------------------------------------------------------------------------------

def numpyro_work(work, batch, data, scan):
    threads = os.environ['PEER_THREADS']
    if threads == '1':
        os.environ['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
    os.environ['JAX_PLATFORMS'] = DEVICE
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'  # others want memory of the GPU's, too
    import jax
    jax.config.update('jax_default_matmul_precision', 'highest')  # FP32, as everyone
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.distributions import constraints

    def free(name, *shape):
        return dist.Normal(numpyro.param(name + '_loc', jnp.zeros(shape)),
                           numpyro.param(name + '_scale', jnp.full(shape, 0.1), constraint=constraints.positive))

    if work == 'vae_step':
        arrays = (jnp.asarray(digits(data, batch)),)
        stacked = True

        def linear(name, x, out):
            inputs = x.shape[-1]
            bound = 1 / math.sqrt(inputs)

            def init(key, shape):
                return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
            w = numpyro.param(name + '.weight', lambda key: init(key, (inputs, out)))
            return x @ w + numpyro.param(name + '.bias', lambda key: init(key, (out,)))

        def model(x):
            with numpyro.plate('data', batch):
                z = numpyro.sample('latent', dist.Normal(jnp.zeros((batch, LATENT)), 1.).to_event(1))
                h = jax.nn.softplus(linear('decoder.fc1', z, HIDDEN))
                pixels = dist.Bernoulli(logits=linear('decoder.fc21', h, PIXELS))
                numpyro.sample('obs', pixels.to_event(1), obs=x)

        def guide(x):
            h = jax.nn.softplus(linear('encoder.fc1', x, HIDDEN))
            loc, scale = linear('encoder.fc21', h, LATENT), jnp.exp(linear('encoder.fc22', h, LATENT))
            with numpyro.plate('data', batch):
                numpyro.sample('latent', dist.Normal(loc, scale).to_event(1))
    elif work == 'regression':
        arrays, stacked = tuple(map(jnp.asarray, regression_data())), False

        def model(x, y):
            w = numpyro.sample('w', dist.Normal(jnp.zeros(3), 1.).to_event(1))
            b = numpyro.sample('b', dist.Normal(0., 10.))
            sigma = numpyro.sample('sigma', dist.LogNormal(0., 1.))
            with numpyro.plate('rows', ROWS):
                numpyro.sample('y', dist.Normal(x @ w + b, sigma), obs=y)

        def guide(x, y):
            numpyro.sample('w', free('w', 3).to_event(1))
            numpyro.sample('b', free('b'))
            q = free('sigma')
            numpyro.sample('sigma', dist.LogNormal(q.loc, q.scale))
    elif work == 'schools':
        arrays, stacked = (jnp.asarray(EFFECT), jnp.asarray(ERROR)), False

        def model(effect, error):
            mu = numpyro.sample('mu', dist.Normal(0., 5.))
            tau = jnp.exp(numpyro.sample('log_tau', dist.Normal(0., 1.)))
            with numpyro.plate('schools', SCHOOLS):
                raw = numpyro.sample('raw', dist.Normal(0., 1.))
                numpyro.sample('effect', dist.Normal(mu + tau * raw, error), obs=effect)

        def guide(effect, error):
            numpyro.sample('mu', free('mu'))
            numpyro.sample('log_tau', free('log_tau'))
            with numpyro.plate('schools', SCHOOLS):
                numpyro.sample('raw', free('raw', SCHOOLS))
    else:
        arrays, stacked = (), False

        def model():
            z = 0.
            for i in range(CHAIN):
                z = numpyro.sample(f'z{i}', dist.Normal(z, 1.))

        def guide():
            for i in range(CHAIN):
                numpyro.sample(f'z{i}', free(f'z{i}'))

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(LR.get(work, SMALL_LR)), numpyro.infer.Trace_ELBO())
    batches = [(x,) for x in arrays[0]] if stacked else [arrays]
    held, count = [svi.init(jax.random.PRNGKey(0), *batches[0])], [0]

    if scan:
        length = len(batches) if stacked else 1000

        @jax.jit
        def many(state):
            if stacked:
                return jax.lax.scan(svi.update, state, arrays[0])
            return jax.lax.scan(lambda s, _: svi.update(s, *arrays), state, None, length=length)

        def run(n):
            for _ in range(n):
                held[0], losses = many(held[0])
                float(losses[-1])
        run.steps = length
        return run

    update = jax.jit(svi.update, donate_argnums=0)

    def run(n):
        for _ in range(n):
            held[0], loss = update(held[0], *batches[count[0] % len(batches)])
            float(loss)
            count[0] += 1
    return run


# ---- serving ---------------------------------------------------------------------------------------------------------

LIBRARIES = {
    'torch': torch_work,
    'pyro': lambda *a: pyro_work(*a, jit=False),
    'pyro_jit': lambda *a: pyro_work(*a, jit=True),
    'numpyro': lambda *a: numpyro_work(*a, scan=False),
    'numpyro_scan': lambda *a: numpyro_work(*a, scan=True),
}


def main(library, work, data):
    name, _, batch = work.partition('/')
    run = LIBRARIES[library](name, int(batch or 0), data)
    steps = getattr(run, 'steps', 1)

    def seconds(n):
        start = time.perf_counter()
        run(n)
        return time.perf_counter() - start

    seconds(3)
    n = 1
    while seconds(n) < 0.003:
        n *= 2
    print('ready', flush=True)
    for line in sys.stdin:
        seconds(n)
        print(statistics.median(seconds(n) for _ in range(int(line))) / (n * steps) * 1e6, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
