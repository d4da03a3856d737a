"Checks of the exercises of chapter 07a."
import copy

import torch
from torch import nn

from .core import Wrong, exercise, expect, same


def shaken(bn):
    "A batch norm with statistics and parameters that are not those of a new one."
    with torch.no_grad():
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 3)
        bn.weight.normal_()
        bn.bias.normal_()
    return bn


@exercise('07a.1', hints=[
    'In evaluation a batch norm multiplies each channel by one number and adds another. Write the two down.',
    'The factor goes into the weights of the filter that makes this channel: a weight is (nf, ni, k, k). Which '
    'axis is it?',
    'A bias that the convolution has is scaled as well, and the running mean is taken off before the factor.'])
def fold_bn(f):
    "A convolution that does a batch norm's work too."
    from minidl.norm import BatchNorm
    cases = {'a convolution without bias': dict(bias=False), 'with bias': {},
             'stride and padding': dict(stride=2, padding=1),
             'dilation': dict(dilation=2, bias=False), 'another eps': dict(eps=0.1)}
    x = torch.randn(2, 3, 9, 9)
    for what, kwargs in cases.items():
        eps = kwargs.pop('eps', 1e-5)
        conv, bn = nn.Conv2d(3, 5, 3, **kwargs), shaken(nn.BatchNorm2d(5, eps=eps)).eval()
        new = f(conv, bn)
        if not isinstance(new, nn.Conv2d):
            raise Wrong(f'{what}: it should give an nn.Conv2d, and gives a {type(new).__name__}')
        if new is conv: raise Wrong(f'{what}: it should be a new convolution; this is the one that was given')
        if new.bias is None: raise Wrong(f'{what}: the new convolution needs a bias')
        yield same(new(x).detach(), bn(conv(x)).detach(), what, tol=1e-4)
    yield expect(new.bias.data_ptr() != bn.bias.data_ptr() and new.weight.requires_grad, 'parameters of its own',
                 'the new convolution shares its parameters with the old layers, or they are no parameters')
    bn = shaken(BatchNorm(5)).eval()
    yield same(f(conv, bn)(x).detach(), bn(conv(x)).detach(), 'our BatchNorm', tol=1e-4)


@exercise('07a.2', hints=[
    'Batch norm takes the mean over the batch and the pixels, for each channel. Which axes are left out if every '
    'sample is to be by itself?',
    'The variance divides by the number of pixels, not by one less. eps goes under the root.',
    'No running statistics: training and evaluation are the same. The weight and the bias need two axes to fit '
    'onto the pixels.'])
def InstanceNorm(f):
    "Normalization of each sample's channels by themselves."
    if not issubclass(f.f, nn.Module): raise Wrong('it should be a subclass of nn.Module')
    def pair(nf, **kwargs):
        ours, theirs = f(nf, **kwargs), nn.InstanceNorm2d(nf, affine=True, **kwargs)
        names = {n: tuple(p.shape) for n, p in ours.named_parameters()}
        if names != {'weight': (nf,), 'bias': (nf,)}:
            raise Wrong(f'its parameters should be `weight` and `bias` of shape ({nf},), and are {names or "none"}')
        same(ours.weight.detach(), torch.ones(nf), 'the first weight')
        same(ours.bias.detach(), torch.zeros(nf), 'the first bias')
        return ours, theirs
    def case(ours, theirs, x, what):
        with torch.no_grad():
            for p, q in zip((ours.weight, ours.bias), (theirs.weight, theirs.bias)): q.copy_(p.normal_())
        a, b = (x.clone().requires_grad_() for _ in range(2))
        out, want = ours(a), theirs(b)
        same(out, want.detach(), what)
        g = torch.randn_like(want)
        want.backward(g)
        if not out.requires_grad: raise Wrong(f'{what}: the gradient is missing')
        out.backward(g)
        grads = {'the input': (a, b), 'the weight': (ours.weight, theirs.weight), 'the bias': (ours.bias, theirs.bias)}
        for name, (p, q) in grads.items():
            if p.grad is None: raise Wrong(f'{what}: there is no gradient by {name}')
            same(p.grad, q.grad, f'{what}: the gradient by {name}', tol=1e-3)
        return what
    yield case(*pair(3), torch.randn(4, 3, 5, 6), 'a batch')
    yield case(*pair(3), 5 + 3*torch.randn(1, 3, 4, 4), 'one sample')
    yield case(*pair(2, eps=0.5), torch.randn(2, 2, 3, 3), 'another eps')
    ours, theirs = pair(3)
    x = torch.randn(4, 3, 5, 5)
    yield same(ours.eval()(x).detach(), theirs.eval()(x).detach(), 'in evaluation mode')


@exercise('07a.3', inplace=True, hints=[
    'A forward pass in training mode moves the running statistics by a share `mom` toward those of the batch. You'
    ' need no statistics of your own.',
    'A plain average of k numbers: the first counts whole, the second half, the third a third. So what is `mom` '
    'in the k-th batch?',
    'Put back what you changed: `mom`, and of every module whether it was training. No gradients are needed, and '
    'a dropout should not be on.'])
def recompute_stats(f):
    "Running statistics as plain averages over the data."
    from minidl import norm
    BatchNorm = f.__globals__.get('BatchNorm', norm.BatchNorm)
    def net():
        torch.manual_seed(1)
        layers = nn.Conv2d(1, 4, 3), BatchNorm(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3), BatchNorm(3, mom=0.3)
        return nn.Sequential(*layers)
    def stats(model): return [t.clone() for m in (model[1], model[5]) for t in (m.running_mean, m.running_var)]
    dl = [(torch.randn(bs, 1, 8, 8) + i, torch.zeros(bs)) for i, bs in enumerate((6, 6, 3))]
    ref = net()
    ref[3] = nn.Identity()
    sums = [torch.zeros_like(t) for t in stats(ref)]
    for xb, _ in dl:
        for m in ref:
            if isinstance(m, BatchNorm): m.mom = 1.
        with torch.no_grad(): ref(xb)
        for total, t in zip(sums, stats(ref)): total += t/len(dl)
    model = net()
    for m in model: m.train(not isinstance(m, nn.Dropout))
    modes, before = [m.training for m in model.modules()], copy.deepcopy(dict(model.named_parameters()))
    f(model, dl)
    names = 'the first mean', 'the first variance', 'the second mean', 'the second variance'
    for what, got, want in zip(names, stats(model), sums): yield same(got, want, what, tol=1e-3)
    yield expect(all(torch.equal(p, before[n]) for n, p in model.named_parameters()), 'the parameters as before',
                 'a parameter of the model has changed')
    yield expect(all(p.grad is None for p in model.parameters()), 'no gradients',
                 'gradients are left in the parameters')
    yield expect([m.mom for m in model if isinstance(m, BatchNorm)] == [0.1, 0.3], 'mom as before',
                 '`mom` of a layer is not what it was')
    yield expect([m.training for m in model.modules()] == modes, 'the modes as before',
                 'a module is in another mode than before, training or evaluation')
    model = net().eval()
    f(model, dl)
    yield same(stats(model)[2], sums[2], 'a model in evaluation mode', tol=1e-3)
    yield expect(not any(m.training for m in model.modules()), 'which it keeps',
                 'a model in evaluation mode is in training mode afterwards')
    f(model, dl)
    yield same(stats(model)[0], sums[0], 'a second time', tol=1e-3)
