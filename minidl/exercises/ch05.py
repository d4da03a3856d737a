"Checks of the exercises of chapter 05."
import functools
import sys

import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, same


def learner_for(f):
    "A small Learner; of the module that the answer's `Callback` is from, since the cancels it raises are from there."
    from minidl import learner
    base = next((b for b in f.__mro__ if b.__name__ == 'Callback'), None)
    home = sys.modules.get(getattr(base, '__module__', None))
    Learner = getattr(home, 'Learner', None) or learner.Learner
    if not base: raise Wrong('it should be a subclass of Callback')
    def make(*cbs, n=22, bs=4, n_valid=6, lr=0.1):
        torch.manual_seed(1)
        x, y = torch.randn(n + n_valid, 3), torch.randn(n + n_valid, 1)
        def batches(x, y): return list(zip(x.split(bs), y.split(bs)))
        dls = batches(x[:n], y[:n]), batches(x[n:], y[n:])
        torch.manual_seed(2)
        opt = functools.partial(torch.optim.SGD, lr=0.)
        return Learner(nn.Linear(3, 1), dls, F.mse_loss, opt, lr=lr, cbs=list(cbs), device='cpu', progress=False)
    return make


@exercise('05.1', hints=[
    'Which event happens once per batch, and which once per fit? Start from zero in the one, add in the other.',
    'The events of a batch are announced in validation too. The learner says whether it is training.',
    'The number of samples of a batch is the length of its targets; the last batch may be shorter.'])
def CountSamples(f):
    "A callback that counts training samples."
    make = learner_for(f)
    cb = f()
    learn = make(cb)
    learn.fit(1)
    yield same(cb.n, 22, 'one epoch, the last batch with two samples')
    learn.fit(3)
    yield same(cb.n, 66, 'a fit of three epochs after it')
    learn.validate()
    yield same(cb.n, 66, 'validate outside a fit')
    other = f()
    make(other, n=8, n_valid=40).fit(1)
    yield same(other.n, 8, 'more validation than training')
    yield same(cb.n, 66, 'two callbacks side by side')


@exercise('05.2', hints=[
    'Between the backward pass and the step there are two events. In both the gradients are there.',
    '`torch.randn_like` makes noise of the shape of a gradient. Parameters that took no part have None.',
    'Only the gradients change, in place or not; the parameters are the optimizer\'s business.'])
def GradientNoise(f):
    "A callback that adds noise to gradients."
    make = learner_for(f)
    def weights(*cbs, epochs=2, **kwargs):
        learn = make(*cbs, **kwargs)
        learn.fit(epochs)
        return nn.utils.parameters_to_vector(learn.model.parameters()).detach()
    plain = weights()
    yield same(weights(f(0.)), plain, 'std 0 changes nothing')
    yield expect(not torch.allclose(weights(f(0.5)), plain), 'noise',
                 'with std=0.5 the weights are those without noise')
    learn = make(f(0.5), n=4)
    learn.model = nn.Linear(3, 2000)
    learn.dls.train = [(torch.zeros(4, 3), torch.zeros(4, 2000))]
    learn.loss_func = lambda pred, targ: 0*pred.sum()
    learn.dls.valid = None
    before = learn.model.weight.detach().clone()
    torch.manual_seed(5)
    learn.fit(1, lr=1.)
    noise = learn.model.weight.detach() - before
    yield expect(abs(noise.mean()) < 0.05, 'noise of mean 0', f'the noise has mean {noise.mean():.2g}')
    yield expect(abs(noise.std() - 0.5) < 0.05, 'noise of the right size',
                 f'with std=0.5 the noise has std {noise.std():.2g}')
    learn.model.extra = nn.Parameter(torch.zeros(1))
    learn.fit(1, reset_opt=True)
    yield 'a parameter without a gradient'


@exercise('05.3', hints=[
    'A mean can be put together from the means of parts. Can a median? What has to be kept, then?',
    '`update` appends, `compute` joins what was appended and takes the median, `reset` forgets it.',
    'Keep detached numbers: a list of tensors that remember their graphs fills the memory.'])
def MedianAbsoluteError(f):
    "A metric that is no mean."
    metric = f()
    for name in 'update', 'compute', 'reset':
        if not callable(getattr(metric, name, None)): raise Wrong(f'it has no method `{name}`')
    pred, targ = torch.randn(31, 1), 3*torch.randn(31, 1)
    want = (pred - targ).abs().median()
    def result(*parts):
        metric.reset()
        for p, t in parts: metric.update(p, t)
        return torch.as_tensor(metric.compute()).float().squeeze()
    yield same(result((pred, targ)), want, 'one batch')
    yield same(result(*zip(pred.split(10), targ.split(10))), want, 'four batches, the last of one sample')
    yield same(result((pred[:5], targ[:5])), (pred[:5] - targ[:5]).abs().median(), 'after a reset')
    yield same(result((pred.requires_grad_(), targ)), want.detach(), 'predictions with a graph')
    metric.update(pred, targ)
    held = [v if isinstance(v, (list, tuple)) else [v] for v in vars(metric).values()]
    yield expect(not any(getattr(t, "requires_grad", False) for v in held for t in v), 'no graph is kept',
                 'the tensors it keeps hold on to their graphs')
    try: metric.update(torch.zeros(4, 1), torch.zeros(4))
    except ValueError: yield 'shapes that would broadcast'
    else: raise Wrong('predictions (4, 1) and targets (4,) would broadcast to (4, 4); this should raise a ValueError')


@exercise('05.4', hints=[
    'Callbacks may change what the learner holds: `learn.xb` and `learn.yb` are what the model and the loss are '
    'about to get.',
    'Keep the first batch of the fit, and put it in place of every later one, before the model is called.',
    'A new fit begins with a new first batch. In validation nothing should change.'])
def OverfitOneBatch(f):
    "A callback that trains on one batch only."
    make = learner_for(f)
    from minidl.learner import Callback
    class Spy(Callback):
        order = 1000
        def before_fit(self, learn): self.seen = {True: [], False: []}
        def after_loss(self, learn): self.seen[learn.training].append((learn.xb.clone(), learn.yb.clone()))
    spy = Spy()
    learn = make(f(), spy, n=20)
    first = learn.dls.train[0]
    learn.fit(3)
    yield expect(len(spy.seen[True]) == 15,
                 'as many batches as before', f"{len(spy.seen[True])} training batches in 3 epochs of 5")
    yield expect(all(torch.equal(x, first[0]) for x, _ in spy.seen[True]), 'always the first inputs',
                 'a training batch has other inputs than the first')
    yield expect(all(torch.equal(y, first[1]) for _, y in spy.seen[True]), 'and the targets to them',
                 'a training batch has other targets than the first')
    valid = [x for x, _ in learn.dls.valid]*3
    yield expect(len(spy.seen[False]) == len(valid) and all(map(torch.equal, (x for x, _ in spy.seen[False]), valid)),
                 'validation as before',
                 'the validation batches are not those of the validation loader')
    learn.dls.train = learn.dls.train[1:]
    learn.fit(1)
    yield expect(all(torch.equal(x, learn.dls.train[0][0]) for x, _ in spy.seen[True]), 'a second fit on other data',
                 'a second fit, on other data, still trains on the batch of the first')
