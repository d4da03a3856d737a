"Checks of the exercises of chapter 11a."
import math

import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, raises, same, same_grads


def _shaped(got, shape, what):
    "A tensor of this shape, whatever is in it."
    if not isinstance(got, torch.Tensor): raise Wrong(f'{what}: gives a {type(got).__name__} instead of a tensor')
    if tuple(got.shape) != shape: raise Wrong(f'{what}: shape {tuple(got.shape)} instead of {shape}')
    return what


@exercise('11a.1', hints=[
    'Two products, one with the input and one with the state, each cut into three. Which of the three pieces may be '
    'added before anything else happens to them?',
    'The reset gate stands between the two pieces of the candidate, and the bias of the state is on its side.',
    'z says how much of the old state stays, not how much is new.'])
def gru_cell(f):
    "A GRU cell in two products."
    def weights(n_in, n_hid, size=0.4, dtype=torch.float32):
        shapes = (3*n_hid, n_in), (3*n_hid, n_hid), (3*n_hid,), (3*n_hid,)
        return [size*torch.randn(s, dtype=dtype) for s in shapes]
    yield same_grads(f, torch.gru_cell, torch.randn(5, 3), torch.randn(5, 4), *weights(3, 4), what='a batch of five')
    yield same_grads(f, torch.gru_cell, torch.randn(1, 6), torch.randn(1, 2), *weights(6, 2), what='a batch of one')
    double = [torch.randn(2, n, dtype=torch.float64) for n in (3, 3)]
    yield same_grads(f, torch.gru_cell, *double, *weights(3, 3, dtype=torch.float64), what='float64')
    x, h = torch.randn(2, 3), torch.randn(2, 3)
    yield same_grads(f, torch.gru_cell, x, h, *weights(3, 3, 100.), what='gates that are all open or shut')


@exercise('11a.2', hints=[
    'Ordinary dropout makes up for what it removes. Here nothing is removed: is there something to make up for?',
    'A mask decides place by place which of the two is taken. In evaluation there is no chance, only its expectation.'])
def zoneout(f):
    "Some of the state stays as it was."
    new, old = torch.randn(40, 250), torch.randn(40, 250)
    kept = None
    for p in 0.3, 0.75:
        out = f(new, old, p, True)
        _shaped(out, (40, 250), f'p={p} in training')
        kept = out == old
        if not (kept | (out == new)).all():
            raise Wrong('in training each number should be one of the two, the new or the old one, and '
                        f'{(~kept & (out != new)).sum()} of {out.numel()} are neither')
        share = kept.float().mean().item()
        if abs(share - p) > 5*math.sqrt(p*(1 - p)/out.numel()):
            raise Wrong(f'p={p}: a share of {share:.3f} keeps the old state')
    yield 'shares in training'
    again = f(new, old, 0.75, True) == old
    yield expect(not torch.equal(kept, again), 'another mask in each call', 'two calls use the same mask')
    rows, columns = kept.float().mean(1), kept.float().mean(0)
    yield expect(rows.min() > 0.5 and rows.max() < 1 and columns.min() > 0.2 and columns.max() - columns.min() > 0.1,
                 'chance at each place', 'rows of the batch, or units, share their fate')
    yield same(f(new, old, 0.3, False), 0.3*old + 0.7*new, 'in evaluation')
    yield same((f(new, old, 0., True), f(new, old, 1., True)), (new, old), 'p of 0 and of 1')
    a, b = (torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    out = f(a, b, 0.5, True)
    if not out.requires_grad: raise Wrong('in training the gradient is missing: the result is cut off from both states')
    got = torch.autograd.grad(out.sum(), (a, b), allow_unused=True)
    from_old = (out == b).double()
    for g, want, name in zip(got, (1 - from_old, from_old), ('new', 'old')):
        if g is None: raise Wrong(f'no gradient reaches the {name} state')
        same(g, want, f'the gradient by the {name} state')
    yield 'gradients of both states'
    for p in -0.1, 1.1: yield raises(ValueError, f, new, old, p, True, what=f'p={p}')


@exercise('11a.5', hints=[
    'A mean can be kept without what it is made of: with the n-th value it moves an n-th of the way towards it.',
    'The optimizer knows the parameters as objects. So their numbers are exchanged, in place and without a record, and '
    'the objects stay.',
    'A method with `@contextmanager` and a `yield` in a `try` says what comes before, and what comes after whatever '
    'happens.'])
def WeightMean(f):
    "The mean of the weights on the way, and a model that wears it for a while."
    for name in 'update', 'swapped':
        if not callable(getattr(f, name, None)): raise Wrong(f'it has no method `{name}`')
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 9))
    model[3].weight = model[0].weight                                    # tied
    objects, seen = list(model.parameters()), []
    def move():
        with torch.no_grad():
            for p in objects: p.copy_(torch.randn(p.shape))
    def is_mean(what):
        before = [p.detach().clone() for p in objects]
        with mean.swapped():
            now = list(model.parameters())
            if len(now) != len(objects) or any(p is not q for p, q in zip(now, objects)):
                raise Wrong(f'{what}: the parameters are other objects than before; an optimizer would lose them')
            if not all(p.is_leaf and p.requires_grad for p in now):
                raise Wrong(f'{what}: the parameters cannot be trained any more')
            inside = [p.detach().clone() for p in now]
        for i, p in enumerate(inside): same(p, torch.stack([s[i] for s in seen]).mean(0), f'{what}: a weight')
        for p, b in zip(objects, before):
            if not torch.equal(p, b): raise Wrong(f'{what}: afterwards the weights are not what they were before')
        return what
    mean = f(model)
    def enter():
        with mean.swapped(): pass
    yield raises(ValueError, enter, what='a mean of nothing')
    for _ in range(3):
        move()
        mean.update()
        seen.append([p.detach().clone() for p in objects])
        if len(seen) == 1: yield is_mean('one update')
    yield is_mean('three updates')
    move()
    yield is_mean('training that went on without')
    mean.update()
    seen.append([p.detach().clone() for p in objects])
    yield is_mean('and a fourth')
    before = [p.detach().clone() for p in objects]
    try:
        with mean.swapped(): raise KeyError('in the middle')
    except KeyError: pass
    else: raise Wrong('an error that is raised while the mean is in place should go through')
    yield expect(all(torch.equal(p, b) for p, b in zip(objects, before)), 'an error in between',
                 'after an error in between, the model still has the mean')
    model.train()(torch.arange(9))
    buffers = [b.clone() for b in model.buffers()]
    mean.update()
    seen.append([p.detach().clone() for p in objects])
    with mean.swapped(): inside = [b.clone() for b in model.buffers()]
    yield expect(all(map(torch.equal, buffers, inside)), 'buffers stay', 'the buffers of the model are exchanged, too')
    for _ in range(6):
        move()
        mean.update()
        seen.append([p.detach().clone() for p in objects])
    yield is_mean('ten updates')
    kept, todo, met = {}, [v for v in vars(mean).values() if v is not model], set()
    while todo:
        v = todo.pop()
        if id(v) in met: continue
        met.add(id(v))
        if isinstance(v, (list, tuple)): todo += v
        elif isinstance(v, dict): todo += v.values()
        elif isinstance(v, nn.Module): todo += [*v.parameters(), *v.buffers()]
        elif isinstance(v, torch.Tensor): kept[v.untyped_storage().data_ptr()] = v.untyped_storage().nbytes()
    for p in objects: kept.pop(p.untyped_storage().data_ptr(), None)
    own = sum(p.nbytes for p in objects)
    yield expect(sum(kept.values()) < 2.5*own, 'memory that does not grow',
                 f'after ten updates it holds {sum(kept.values())/own:.0f} times the weights of the model')


@exercise('11a.6', hints=[
    'Each of the k components is a softmax over all tokens. What is mixed: their logits, or their probabilities?',
    'The logarithm of a sum of products of probabilities, from the logarithms of these: `torch.logsumexp` does it '
    'without leaving the logarithms.',
    'The rows of `latent` come component by component, so the last axis of the product is cut into (k, emb_sz).'])
def mixture_of_softmaxes(f):
    "A decoder whose probabilities are mixed from several softmaxes."
    def exact(h, latent, prior, emb):
        z = (h @ latent.T).tanh().unflatten(-1, (len(prior), emb.shape[1]))
        parts = F.log_softmax(z @ emb.T, -1) + F.log_softmax(h @ prior.T, -1)[..., None]
        return torch.logsumexp(parts, -2)
    def inputs(*shape, n=5, k=3, emb_sz=4, n_tokens=7, size=1., dtype=torch.float32):
        shapes = (*shape, n), (k*emb_sz, n), (k, n), (n_tokens, emb_sz)
        return [size*torch.randn(s, dtype=dtype) for s in shapes]
    h, latent, prior, emb = inputs(2, 6)
    got = f(h, latent, prior, emb)
    _shaped(got, (2, 6, 7), 'three components')
    yield same(got.exp().sum(-1), torch.ones(2, 6), 'probabilities that sum to 1')
    one = inputs(3, 2, k=1)
    yield same_grads(f, exact, *one, what='a single component')
    yield same_grads(f, exact, h, latent, prior, emb, what='three of them')
    yield same_grads(f, exact, *inputs(1, 1, n=3, k=4, emb_sz=2, dtype=torch.float64), what='float64')
    yield same_grads(f, exact, *inputs(2, 3, size=40.), what='large numbers', tol=1e-3)
