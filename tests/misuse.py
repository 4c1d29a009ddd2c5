"""The misuse test: what must not compile does not, and the compiler's words say why; what must compile, does without a
warning. The README's snippets are among the latter.

Called by meson as misuse.py ROOT BUILD. Uses those of gcc and clang that are there; prints a line that tests/run adds
up. Every snippet is the body of a function; the bad ones are compiled without any warning flag."""

import concurrent.futures
import re
import shutil
import subprocess
import sys

COMPILERS = ['gcc', 'clang']
WARNINGS = ['-Wall', '-Wextra', '-Wpedantic', '-Werror']

HEAD = """#include <ppl/ppl.h>
#include <models/nn.h>
typedef enum colour { RED, BLUE } colour;
typedef struct net { int width; } net;
void plain(void); ad_tensor *gives(void); void one(ad_tensor *x); void two(net *v, ad_tensor *x);
void every(bool a, char b, signed char c, short d, int e, long f, long long g, unsigned char h, unsigned short i,
           unsigned j, unsigned long k, const double *l);
void shades(colour a, float b, const net *c);
int body(ad_tensor *x, ad_tensor *y, distribution *d, svi *s, ppl_predictive *p, ppl_density *q, net *v, double *data,
         int n);
int body(ad_tensor *x, ad_tensor *y, distribution *d, svi *s, ppl_predictive *p, ppl_density *q, net *v, double *data,
         int n)
{
    (void)x, (void)y, (void)d, (void)s, (void)p, (void)q, (void)v, (void)data, (void)n;
    double three[3] = { 0 }; float real = 1; net value = { 0 };
    (void)three, (void)real, (void)value;
"""
TAIL = """
    return 0;
}
"""

WHOLE = 'a size, count or axis must be an integer'
FRACTION = 'conversion.* from .double.|floating-point number into integer'
# (snippet, words of the compiler)
BAD = [
    ('ad_zeros(3.5);', WHOLE),
    ('ad_zeros(2, real);', WHOLE),
    ('ad_ones(n / 2.0);', WHOLE),
    ('ad_zeros(x);', WHOLE),
    ('ad_full_shape(AD_SHAPE(2.5), 1);', WHOLE),
    ('ad_shape shape = AD_SHAPE(n, 2.5); (void)shape;', WHOLE),
    ('ad_zeros(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17);', 'at most 16 dimensions'),
    ('ad_arange(2.5);', WHOLE),
    ('ad_sum(x, 1.5);', WHOLE),
    ('ad_mean(x, 0, real);', WHOLE),
    ('ad_dim(x, 0.5);', WHOLE),
    ('ad_slice(x, 0, 0, 2.5);', WHOLE),
    ('ad_slice(x, 0, n / 2.0, 2);', WHOLE),
    ('ad_pad(x, 0, 1, 2.5);', WHOLE),
    ('ad_random_index(10, 2.5, 0);', WHOLE),
    ('ad_scatter_add(x, 0, y, 2.5);', WHOLE),
    ('ad_unsqueeze(x, -1.5);', WHOLE),
    ('ad_gather(x, 0.5, y);', WHOLE),
    ('ppl_subsample(x, 0.5);', WHOLE),
    ('dist_to_event(d, 1.5);', WHOLE),
    ('ad_read(x, three, 2.5);', WHOLE),
    ('ppl_param("s", 3);', 'braces'),
    ('ppl_param("s", n, .init = ppl_constant(1));', 'braces'),
    ('ppl_param("s", 3, 4);', 'braces'),
    ('ppl_param("s", 2.5);', 'braces'),
    ('ppl_param("s", AD_SHAPE(2.5));', WHOLE),
    ('ppl_param("s", AD_SHAPE(3), .init = 1.0);', 'braces'),
    ('ppl_plate ("d", 3.7) {}', FRACTION),
    ('ppl_plate ("d", n * 0.1) {}', FRACTION),
    ('ppl_plate ("d", 10, .subsample_size = 2.5) {}', FRACTION),
    ('ppl_plate ("d", 10, .subsample = data) {}', 'pointer'),
    ('ppl_each (i, "d", 3.7) { (void)i; }', FRACTION),
    ('ppl_sample("x", d, .obs = data);', 'incompatible pointer'),
    ('ppl_sample("x", d, .obs = three);', 'incompatible pointer'),
    ('ppl_sample("x", d, .obs = 1);', 'integer'),
    ('ppl_sample("x", d, .obs = 1.0);', 'incompatible type'),
    ('ppl_sample("x", d, .obs = d);', 'incompatible pointer'),
    ('ppl_sample("x", x);', 'incompatible pointer'),
    ('ppl_factor("f", data);', 'incompatible type'),
    ('ad_add(x, data);', 'incompatible type'),
    ('ad_from(v, AD_SHAPE(3));', '_Generic'),
    ('svi_new(one, plain, .args = PPL_ARGS(ad_tensor *));', 'guide does not take|too many arguments'),
    ('svi_new(two, two, .args = PPL_ARGS(ad_tensor *));', 'too few arguments|does not take exactly'),
    ('svi_new(one, one, .args = PPL_ARGS(net *));', 'the model does not take exactly the types of PPL_ARGS'),
    ('svi_new(one, one, .args = PPL_ARGS(net));', 'is neither a number|incompatible type'),
    ('svi_new(plain, plain, .elbo = elbo_trace(.particles = 2.5));', FRACTION),
    ('svi_run(s, 10.5);', FRACTION),
    ('ppl_predictive_new(plain, plain, .samples = 2.5);', FRACTION),
    ('svi_step(s, value);', 'of a struct, pass the address'),
    ('ppl_predict(p, value);', 'of a struct, pass the address'),
    ('svi_run(s, 10, .args = PPL_VALUES(value));', 'of a struct, pass the address'),
    ('ppl_trace_run(one);', 'too few arguments'),
    ('ppl_density_new(one);', 'too few arguments'),
    ('svi_step(s, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17);', 'at most 12 arguments'),
]
GOOD = [
    'ad_zeros(); ad_ones(); ad_zeros((n)); ad_full_shape(AD_SHAPE(), 1); ad_shape scalar = AD_SHAPE(); (void)scalar;',
    'svi *a = svi_new(plain, plain); svi_free(a);',
    'svi *a = svi_new(gives, plain); svi_free(a);',
    'svi *a = svi_new(plain, plain, .args = PPL_ARGS()); svi_free(a);',
    'svi *a = svi_new(plain, plain, .args = PPL_ARGS(void)); svi_free(a);',
    'svi *a = svi_new(one, one, .args = PPL_ARGS(ad_tensor *)); svi_free(a);',
    'svi *a = svi_new(&one, one, .args = PPL_ARGS(ad_tensor *), .optim = { .lr = 0.1 }); svi_free(a);',
    'svi *a = svi_new(one, NULL, .args = PPL_ARGS(ad_tensor *)); svi_free(a);',
    'svi *a = svi_new(one, one); svi_free(a);',
    'svi *a = svi_new(plain, plain, .optim = optim_adam(.beta1 = PPL_ZERO)); svi_free(a);',
    '''svi *a = svi_new(every, every, .args = PPL_ARGS(bool, char, signed char, short, int, long, long long,
        unsigned char, unsigned short, unsigned, unsigned long, const double *));
    svi_step(a, true, 'c', (signed char)1, (short)1, 1, 1L, 1LL, (unsigned char)1, (unsigned short)1, 1u, 1ul,
        three);''',
    'svi *a = svi_new(shades, shades, .args = PPL_ARGS(colour, float, const net *)); svi_step(a, BLUE, real, v);',
    'const net *w = v; svi *a = svi_new(shades, shades, .args = PPL_ARGS(colour, float, const net *));'
    ' svi_step(a, RED, 1, w);',
    'svi_step(s); svi_evaluate(s); svi_step(s, NULL); svi_step(s, x, NULL, 3, 2.5f, 1.0L, &value, three);',
    'svi_run(s, 100); svi_run(s, 1000, .args = PPL_VALUES()); svi_run(s, 1000, .args = PPL_VALUES(NULL, x, &value));',
    'svi_run(s, 1e3, .args = PPL_VALUES(x)); svi_run(s, n);',
    'ppl_predict(p); ppl_predict(p, NULL); ppl_predict(p, x, 3);',
    'ppl_predictive *a = ppl_predictive_new(plain, plain, .samples = 3); ppl_predictive_free(a);',
    'ppl_predictive *a = ppl_predictive_new(plain, plain); ppl_predictive_free(a);',
    'ppl_predictive *a = ppl_predictive_new(one, NULL, .args = PPL_ARGS(ad_tensor *)); ppl_predictive_free(a);',
    'ppl_predictive *a = ppl_predictive_prior(plain); ppl_predictive_free(a);',
    'ppl_predictive *a = ppl_predictive_prior(one, .args = PPL_ARGS(ad_tensor *), .samples = 3,'
    ' .sites = PPL_NAMES("a", "b")); ppl_predictive_free(a);',
    'ppl_density *a = ppl_density_new(plain), *b = ppl_density_new(one, PPL_ARGS(ad_tensor *), NULL);'
    ' ppl_density_free(a), ppl_density_free(b);',
    'ad_scope { ppl_trace_run(plain); ppl_trace_run(plain, PPL_ARGS());'
    ' ppl_trace_run(one, PPL_ARGS(ad_tensor *), x); }',
    'ppl_param("s"); ppl_param("s", AD_SCALAR); ppl_param("s", .init = ppl_constant(1));'
    ' ppl_param("s", AD_SHAPE(3, n));',
    'ppl_param("s", AD_SHAPE(3), .init = ppl_values(three), .constraint = dist_interval(0, 1), .event_dim = PPL_NONE);',
    'ad_shape shape = AD_SHAPE(2); ppl_param("s", shape); ppl_param("s", ad_shape_of(x), .constraint = { 0 });',
    'ppl_sample("x", d); ppl_sample("x", d, .obs = x); ppl_sample("x", d, .obs = NULL); ppl_sample("x", d, x, y);',
    'ppl_sample("x", dist_normal(0, 1), .infer = { .auxiliary = true }, .obs = n ? x : NULL);',
    'ad_tensor *i; ppl_plate ("d", n, .subsample_size = n / 2, .index = &i)'
    ' ppl_plate ("e", ad_dim(x, 0), .dim = -2) {}',
    'size_t m = 3; long long k = 4; bool b = true; colour c = BLUE; ad_zeros(m, k, b, c, (short)3, \'a\', 1u);',
    'ppl_each (i, "d", 5) { if (i == 3) break; }',
    'static const ad_shape shape = { 2, { 3, 4 } }; ad_from(data, shape); ad_from(three, AD_SHAPE(3));',
    'double many[n + 1]; ad_read(x, many, n); ad_read(x, &three[1], 1); ad_write(x, data, 3);'
    ' ad_read(x, data, ad_size(x));',
    'ppl_param_value("s", three, 3); ppl_param_set("s", data, 3); ppl_predictive_read(p, "s", three, 3);',
    'ad_sum(x); ad_sum(x, -1); ad_sum(x, 0, n); ad_slice(x, -1, n, 2 * n); ad_arange(ad_dim(x, 0));',
    'ppl_density_value(q, data, NULL); ppl_density_value(q, three, three); ppl_density_hessian(q, data, three);',
    'ad_concat((ad_tensor *[]){ x, y }, 2, 0);',
]


def compile_it(compiler, flags, root, build, text):
    command = [compiler, '-x', 'c', '-std=gnu11', *flags, '-I', root, '-I', build, '-fsyntax-only', '-']
    return subprocess.run(command, input=text, capture_output=True, text=True)


def readme(root):
    """The README's C blocks as one file: a model, and the body of a function that fits it."""
    model, fit = re.findall(r'```c\n(.*?)```', open(f'{root}/README.md', encoding='utf-8').read(), flags=re.S)
    return f"""#include <models/loader.h>
{model}
static void guide(vae *v, ad_tensor *x) {{ vae_encode(v, x); }}
double fit(loader *train, vae v);
double fit(loader *train, vae v)
{{
    double loss = 0;
    ad_tensor *x;
{fit}
return loss;
}}
"""


def main(root, build):
    compilers = [c for c in COMPILERS if shutil.which(c)]
    jobs = []
    for compiler in compilers:
        jobs += [(compiler, [], HEAD + code + TAIL, code, words) for code, words in BAD]
        jobs += [(compiler, WARNINGS, HEAD + code + TAIL, code, None) for code in GOOD]
        jobs.append((compiler, WARNINGS, readme(root), 'the README', None))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda j: compile_it(j[0], j[1], root, build, j[2]), jobs)
        for (compiler, _, _, code, words), result in zip(jobs, results):
            if (words is None) == (result.returncode == 0) and (words is None or re.search(words, result.stderr)):
                continue
            failed += 1
            what = 'compiles' if result.returncode == 0 else 'says' if words else 'does not compile'
            print(f'{compiler}: {code}\n  {what}, want {words or "no word"}:\n{result.stderr}')
    print(f'misuse: {len(jobs) - failed} passed, {failed} failed, 0 skipped')
    return 1 if failed or not jobs else 0


sys.exit(main(*sys.argv[1:3]))
