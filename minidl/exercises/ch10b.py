"Checks of the exercises of chapter 10b."
import math

import torch
from torch import nn

from .core import Wrong, exercise, expect, raises, same


@exercise('10b.1', hints=[
    'Go through the parameters, and for each through the processes: how much does an item of each of them weigh?',
    'A process without items has a gradient all the same, of its stand-in. Zero times NaN is NaN, so it is better not '
    'to touch it at all.',
    'None means that this process did not use the parameter: its items have the gradient zero. They are still among '
    'all the items that the sum is divided by.'])
def combine_grads(f):
    "The gradient of a whole batch, from those of uneven shares."
    def grads(*shapes): return [torch.randn(s) for s in shapes]
    a, b, c = (grads((3, 2), (3,)) for _ in range(3))
    def mean(shares, counts): return [sum(n*g for n, g in zip(counts, gs))/sum(counts) for gs in zip(*shares)]
    yield same(f([a, b], [32, 32]), mean([a, b], [32, 32]), 'even shares')
    yield same(f([a, b, c], [11, 10, 8]), mean([a, b, c], [11, 10, 8]), 'uneven shares')
    yield same(f([a], [5]), a, 'one process')
    bad = [torch.full_like(g, math.nan) for g in c]
    yield same(f([a, b, bad], [2, 1, 0]), mean([a, b], [2, 1]), 'a stand-in that gave NaN')
    half = [[a[0], None], [None, None], [c[0], c[1]]]
    want = [(3*a[0] + 4*c[0])/9, 4*c[1]/9]
    yield same(f(half, [3, 2, 4]), want, 'parameters that some processes did not use')
    yield same(f([[a[0], None], [b[0], None]], [1, 3]), [(a[0] + 3*b[0])/4, None], 'a parameter that nobody used')
    yield same(f([[a[0], None], [b[0], b[1]]], [3, 0]), [a[0], None], 'used by the stand-in alone')
    yield raises(ValueError, f, [a, b], [0, 0], what='no items at all')


@exercise('10b.2', hints=[
    'What is left of the order when the first `done` items are gone?',
    'The whole batch holds bs items for each process. A slice with a step deals it out like cards.',
    'An empty slice is an empty list, which is what a process without an item should get here.'])
def deal(f):
    "Who gets what in each step of the rest of an epoch."
    def want(order, bs, n_ranks, done=0):
        out = []
        for start in range(done, len(order), bs*n_ranks):
            batch = order[start:min(start + bs*n_ranks, len(order))]
            out.append([[x for i, x in enumerate(batch) if i % n_ranks == r] for r in range(n_ranks)])
        return out
    def case(what, *args, **kwargs):
        got = f(*args, **kwargs)
        if not isinstance(got, list): raise Wrong(f'{what}: it should give a list of steps')
        should = want(*args, **kwargs)
        if len(got) != len(should): raise Wrong(f'{what}: {len(got)} steps instead of {len(should)}')
        for i, (g, s) in enumerate(zip(got, should)):
            if not isinstance(g, (list, tuple)) or len(g) != len(s):
                raise Wrong(f'{what}: step {i} should be a list of {len(s)} lists, one for each process')
            for r, (mine, due) in enumerate(zip(g, s)):
                if not isinstance(mine, (list, tuple)) or list(mine) != due:
                    raise Wrong(f'{what}: in step {i} process {r} gets {mine}')
        return what
    order = torch.randperm(11).tolist()
    yield case('12 items for 3 processes', list(range(12)), 2, 3)
    yield case('a random order that does not divide', order, 2, 3)
    yield case('fewer items than processes', [7, 4], 4, 3)
    yield case('one process', order, 4, 1)
    yield case('the rest of an epoch', order, 2, 2, done=4)
    yield case('the rest, for other processes', order, 1, 3, done=5)
    yield case('an epoch that is done', order, 2, 3, done=11)
    before = list(order)
    f(order, 2, 3, done=6)
    yield expect(order == before, 'the order is left alone', 'the list that it was given has changed')


@exercise('10b.3', hints=[
    'What does it have to remember? Two attributes are plenty.',
    'Before the first update there is no largest error. NaN for that must not get in the way of later ones: a '
    'comparison with NaN is always false.',
    '`merge_state` is handed the metrics of the other processes. One of them may not have seen anything.'])
def MaxError(f):
    "A metric that cannot be added up over processes."
    def full(*sizes, seed=0):
        torch.manual_seed(seed)
        m, data = f(), [(torch.randn(n, 2), torch.randn(n, 2)) for n in sizes]
        for pred, targ in data: m.update(pred, targ)
        errors = [(pred - targ).abs().max().item() for pred, targ in data]
        return m, max(errors, default=math.nan)
    def value(m): return float(m.compute())
    for name in 'update', 'compute', 'reset', 'merge_state':
        if not hasattr(f(), name): raise Wrong(f'it has no `{name}`')
    m = f()
    pred = torch.tensor([1., -5., 2.])
    m.update(pred, torch.tensor([1.5, -2., 2.]))
    if m.compute() is None: raise Wrong('one batch: compute gives None; is a `return` missing?')
    yield same(value(m), 3., 'one batch')
    yield same(pred, torch.tensor([1., -5., 2.]), 'the predictions are left alone')
    m.update(torch.zeros(2, 2), torch.full((2, 2), 0.5))
    yield same(value(m), 3., 'a second batch with smaller errors')
    m, want = full(10, 40, 7)
    yield same(value(m), want, 'several batches')
    m.reset()
    yield expect(math.isnan(value(m)), 'NaN after reset',
                 f'after reset compute gives {value(m):g}, as if there were an error')
    m.update(torch.ones(3), torch.full((3,), 0.75))
    yield same(value(m), 0.25, 'and then a small error')
    yield raises(ValueError, m.update, torch.zeros(3), torch.zeros(3, 1), what='shapes that would broadcast')
    ms = sorted((full(5, seed=s) for s in range(3)), key=lambda o: o[1])
    others = [ms[2][0], ms[1][0]]
    before = [value(m) for m in others]
    ms[0][0].merge_state(others)
    yield same(value(ms[0][0]), max(want for _, want in ms), 'merged with two others')
    yield expect([value(m) for m in others] == before, 'the others are left alone', 'merge_state changes the others')
    m, want = full(6)
    m.merge_state([f()])
    yield same(value(m), want, 'merged with one that has seen nothing')
    nothing = f()
    nothing.merge_state([f(), m])
    yield same(value(nothing), want, 'and the other way round')
    nothing.reset()
    yield expect(math.isnan(value(nothing)) and value(m) == want, 'reset after merging',
                 'reset does not forget what was merged, or resets the other one too')


@exercise('10b.4', inplace=True, hints=[
    'First decide which parameters share a bucket, from the last one on. A bucket is closed when the next gradient '
    'does not fit any more.',
    '`torch.cat` of flattened gradients makes the vector, `split` by their `numel` takes it apart, `view_as` gives the '
    'shapes back.',
    'A gradient that is larger than a bucket gets one of its own, and there is no empty bucket, even if the first '
    'gradient is such a one. `nbytes` is the size of a tensor in bytes.'])
def reduce_in_buckets(f):
    "Gradients averaged over processes, with few large messages."
    def case(what, shapes, n_bytes, buckets, dtype=torch.float32, missing=()):
        "`buckets`: the numbers of floats that should be sent, in their order."
        params = [nn.Parameter(torch.randn(s, dtype=dtype)) for s in shapes]
        grads = [None if i in missing else torch.randint(-8, 8, s).to(dtype) for i, s in enumerate(shapes)]
        for p, g in zip(params, grads): p.grad = None if g is None else g.clone()
        values, sent = [p.detach().clone() for p in params], []
        def all_reduce(t):
            "As if the two others had gradients that are larger by 3 and by 6."
            if not isinstance(t, torch.Tensor) or t.ndim != 1:
                raise Wrong(f'{what}: all_reduce should get a vector, and gets '
                            + (f'shape {tuple(t.shape)}' if isinstance(t, torch.Tensor) else f'a {type(t).__name__}'))
            sent.append(t.clone())
            with torch.no_grad(): t.mul_(3).add_(9)
        f(params, n_bytes, all_reduce, 3)
        if [len(t) for t in sent] != buckets:
            raise Wrong(f'{what}: vectors of {", ".join(str(len(t)) for t in sent) or "no"} numbers are sent, not of '
                        f'{", ".join(map(str, buckets))}')
        for i, (p, g, v) in enumerate(zip(params, grads, values)):
            if not torch.equal(p, v): raise Wrong(f'{what}: parameter {i} itself has changed, not only its gradient')
            if g is None:
                if p.grad is not None: raise Wrong(f'{what}: parameter {i} had no gradient, and has one now')
                continue
            same(p.grad, g + 3, f'{what}: the gradient of parameter {i}')
        return what
    yield case('everything in one bucket', [(3, 2), (4,), (2, 5)], 1000, [20])
    yield case('several buckets', [(2, 2), (3,), (5,), (2, 3)], 40, [6, 8, 4])
    yield case('a bucket that is just full', [(5,), (3, 2), (4,)], 40, [10, 5])
    yield case('a gradient larger than a bucket', [(2,), (5, 5), (3,), (2,)], 40, [5, 25, 2])
    yield case('the last one larger than a bucket', [(2,), (4, 5)], 40, [20, 2])
    yield case('half precision', [(4,), (6,), (4,), (6,)], 40, [20], dtype=torch.float16)
    yield case('parameters without a gradient', [(4,), (9,), (5,)], 40, [9], missing=[1])
    yield case('one parameter', [(3, 3)], 40, [9])
