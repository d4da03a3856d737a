"""One AdamW step on the parameters of a ResNet-18, against `torch.optim.AdamW` at its default.

Short rounds of all contestants take turns, and the median of their paired ratios is what counts: a busy machine slows
all of them. The composed steppers also run under `torch.compile` (which needs a C++ compiler), with hyperparameters in
tensors so that a schedule compiles nothing anew. PyTorch's handwritten kernel (`fused=True`) is there for reference,
and fastai's AdamW where it is installed.

A line tells how many page faults torch's default had in a step. Where its temporaries are fresh memory they are
thousands, and cost it as much as the arithmetic; where the process keeps the memory there are none, and the ratio is
about twice as high."""
import argparse
import math
import shutil
import statistics
import time

import torch
from torch import nn

import peers
from minidl.optim import (AdamW, StatefulOptimizer, adam_ratio, average_grad, average_sqr_grad, decay_weights, hypers,
                          sgd_step)

MOST = {'composed': 0.80, 'compiled': 0.30}


def resnet18_shapes():
    "The 62 parameter tensors of a ResNet-18, 11.7 million numbers."
    shapes, ni = [(64, 3, 7, 7), (64,), (64,)], 64
    for nf in 64, 128, 256, 512:
        for block in range(2):
            shapes += [(nf, ni, 3, 3), (nf,), (nf,), (nf, nf, 3, 3), (nf,), (nf,)]
            if ni != nf: shapes += [(nf, ni, 1, 1), (nf,), (nf,)]
            ni = nf
    return shapes + [(1000, 512), (1000,)]


def get_params():
    gen = torch.Generator().manual_seed(0)
    ps = [nn.Parameter(torch.randn(s, generator=gen)) for s in resnet18_shapes()]
    for p in ps: p.grad = torch.randn(p.shape, generator=gen) * 0.01
    return ps


class CompiledAdamW:
    "AdamW's steppers on whole lists, as one compiled function."
    def __init__(self, params):
        # adam_ratio and sgd_step, not adam_step: addcdiv wants a plain number (torch 2.13), which would be compiled in
        steps = [decay_weights, average_grad, average_sqr_grad, adam_ratio, sgd_step]
        opt = StatefulOptimizer(params, steps, **AdamW(params).defaults)
        self.ps, self.n = params, 0
        self.h = {k: v for k, v in hypers(opt.param_groups[0]).items() if k in ('lr', 'mom', 'sqr_mom', 'eps', 'wd')}
        self.stats = {f.keeps: [torch.zeros_like(p) for p in params] for f in opt.steps if f.keeps}

        def step(ps, gs, known):
            for f in opt.steps: gs = f(ps, gs, **known) or gs
        self.compiled = torch.compile(step)

    @torch.no_grad()
    def step(self):
        self.n += 1
        known = {**self.h, 'step': self.n}
        known |= {k: torch.tensor(float(known[k])) for k in ('lr', 'mom', 'step')}   # nobody schedules sqr_mom
        self.compiled(self.ps, [p.grad for p in self.ps], {**known, **self.stats})


def check(opts, n=3):
    "All contestants walk the same way."
    for opt in opts.values():
        for _ in range(n): opt.step()
    want = opts['torch default'].param_groups[0]['params']
    for name, opt in opts.items():
        if name == 'compiled': ps = opt.ps
        else: ps = opt.param_lists[0] if name == 'fastai' else opt.param_groups[0]['params']
        for p, q in zip(ps, want): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=lambda m: f'{name}: {m}')


def page_faults():
    "Pages handed to this process so far; 0 where the system does not tell."
    try: import resource
    except ImportError: return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def ratios(n_threads, rounds, compiled):
    "Median of paired ratios to torch's default, by name."
    torch.set_num_threads(n_threads)
    opts = {'torch default': torch.optim.AdamW(get_params()), 'composed': AdamW(get_params()),
            'torch fused': torch.optim.AdamW(get_params(), fused=True)}
    if compiled: opts['compiled'] = CompiledAdamW(get_params())
    theirs = peers.fastai_adamw(get_params())
    if theirs: opts['fastai'] = theirs
    check(opts)
    times, faults, names = {name: [] for name in opts}, [], list(opts)
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            before, start = page_faults(), time.perf_counter()
            opts[name].step()
            times[name].append(time.perf_counter() - start)
            if name == 'torch default': faults.append(page_faults() - before)
    default = times.pop('torch default')
    print(f'torch default, {n_threads} thread(s): {1e3*statistics.median(default):.0f} ms and '
          f'{statistics.median(faults):.0f} page faults a step')
    return {name: statistics.median(a/b for a, b in zip(ts, default)) for name, ts in times.items()}


def rows(rounds=40, compiled=True):
    "(what, ratio to `torch.optim.AdamW` at its default, the most it may be or None)"
    if compiled and not shutil.which('g++'):
        print('no g++: the compiled steppers are left out')
        compiled = False
    torch._dynamo.config.capture_scalar_outputs = True   # or alpha=-lr, with lr a tensor, breaks the graph
    before, res = torch.get_num_threads(), []
    try:
        for n_threads in 1, 2:
            for name, ratio in ratios(n_threads, rounds, compiled).items():
                res.append((f'AdamW step, {name} / torch default, {n_threads} thread(s)', ratio, MOST.get(name)))
    finally: torch.set_num_threads(before)
    return res


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--no-compile', action='store_true', help='leave the compiled steppers out')
    args = parser.parse_args()
    for what, ratio, most in rows(args.rounds, not args.no_compile):
        print(f'{what:60} {ratio:.3f}' + (f'  (at most {most})' if most else '  (for reference)'))
