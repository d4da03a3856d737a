"Checks of the exercises of chapter 10."
import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, same


class _Block(nn.Module):
    "A block as the chapter's are: two paths that are added."
    def __init__(self, convs, shortcut):
        super().__init__()
        self.shortcut, self.convs = shortcut, convs


@exercise('10.1', hints=[
    'A tree is walked by a function that calls itself. What does it say of a convolution, of a linear layer, of a '
    'ReLU?',
    'Layers in a row are added up, and of two ways around a block the longer one counts.',
    '`model.children()` are the parts of any module. Ask for `convs` with `hasattr`, before you come to the children.'])
def n_layers(f):
    "How many layers with weights the longest way through a net has."
    def conv(): return nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    yield same(f(nn.Sequential(conv(), conv(), nn.Flatten(), nn.Linear(2, 3))), 3, 'layers in a row')
    yield same(f(nn.Sequential(nn.Sequential(conv(), nn.Sequential(conv(), conv())), conv())), 4, 'rows within rows')
    yield same((f(nn.Conv2d(2, 2, 3)), f(nn.ReLU())), (1, 0), 'a layer by itself')
    block = _Block(nn.Sequential(conv(), conv()), nn.Sequential(nn.AvgPool2d(2), conv()))
    yield same(f(nn.Sequential(conv(), block)), 3, 'a block with a convolution in its shortcut')
    yield same(f(_Block(nn.Sequential(), conv())), 1, 'a block whose shortcut is the longer way')
    yield same(f(_Block(nn.Sequential(block, conv()), nn.Sequential())), 3, 'a block within a block')
    from ..xresnet import xresnet18, xresnet50
    yield same(f(xresnet18(width=0.125)), 20, 'xresnet18')
    yield same(f(xresnet50(width=0.125)), 52, 'xresnet50')


@exercise('10.2', hints=[
    'One draw for each item of the batch, not for each number. `torch.rand(len(x))` is a start.',
    'The draws must be multiplied with x, whatever its number of axes: they need the shape (bs, 1, 1, ...).',
    'What is kept is divided by the share that is kept, so that the mean stays. Is that share ever 0?'])
def drop_path(f):
    "Stochastic depth: the path of a block, left out for some items of a batch."
    x = torch.randn(64, 3, 2, 4)
    def kept(x, p, what):
        "Which items were kept; they are divided by 1-p, the others zero."
        out = f(x, p, True)
        if not isinstance(out, torch.Tensor): raise Wrong(f'{what}: it should give a tensor')
        if out.shape != x.shape: raise Wrong(f'{what}: shape {tuple(out.shape)} instead of {tuple(x.shape)}')
        if out.dtype != x.dtype: raise Wrong(f'{what}: a dtype of its own, not that of x')
        flat, want = out.detach().flatten(1).double(), (x.detach().double()/(1 - p)).flatten(1)
        zero, whole = (flat == 0).all(1), (flat != 0).all(1)
        if not (zero | whole).all(): raise Wrong(f'{what}: of some items a part is zero and a part is not')
        if zero.all() or whole.all():
            raise Wrong(f'{what}: all items have the same fate; each should have a draw of its own')
        tol = None if x.dtype == torch.float32 else 1e-2
        same(flat[whole], want[whole], f'{what}: the items that are kept', tol)
        return whole
    kept(x, 0.5, 'a batch of maps in training')
    yield 'a batch of maps in training'
    yield same(f(x, 0.5, False), x, 'outside of training')
    yield same(f(x, 0., True), x, 'p = 0')
    yield same(f(x, 1., True), torch.zeros_like(x), 'p = 1')
    kept(torch.randn(40, 5), 0.4, 'two axes')
    kept(torch.randn(40, 7, 6), 0.4, 'three axes')
    yield 'two and three axes'
    kept(torch.rand(40, 2, 2, 2).bfloat16() + 1, 0.5, 'bfloat16')
    yield 'bfloat16 stays'
    n, p = 20_000, 0.2
    share = 1 - kept(torch.ones(n, 1), p, 'many items').double().mean()
    yield expect((share - p).abs() < 5*math.sqrt(p*(1 - p)/n), 'the share that is left out',
                 f'with p = 0.2, {share:.1%} of {n:,} items are left out')
    leaf = torch.ones(50, 3, requires_grad=True)
    out = f(leaf, 0.5, True)
    if not out.requires_grad: raise Wrong('the gradient: the result is cut off from x')
    out.sum().backward()
    yield same(leaf.grad, out.detach(), 'the gradient')


@exercise('10.3', hints=[
    'The mean over all places has shape (bs, nf). At the end it has to be multiplied with (bs, nf, h, w).',
    'Two linear layers, with biases, and what the task names after each of them. A sigmoid at the end: each channel '
    'gets a factor between 0 and 1.',
    'nf//reduction may be 0 for few channels. What is the least a layer can have?'])
def SELayer(f):
    "Squeeze and excitation: a factor for each channel, from the means of all."
    def case(nf, reduction, shape, what):
        layer = f(nf) if reduction is None else f(nf, reduction)
        if not isinstance(layer, nn.Module): raise Wrong('it should be an nn.Module')
        h = max(1, nf//(reduction or 16))
        sizes = [tuple(p.shape) for p in layer.parameters()]
        if sorted(sizes) != sorted([(h, nf), (h,), (nf, h), (nf,)]):
            args = f'{nf}' if reduction is None else f'{nf}, {reduction}'
            raise Wrong(f'{what}: SELayer({args}) has parameters of shapes {", ".join(map(str, sizes)) or "none"}; two '
                        f'linear layers with biases, from {nf} to {h} and back, have others')
        x = torch.randn(*shape)
        ws = [p for p in layer.parameters() if p.ndim == 2]
        bs = [p for p in layer.parameters() if p.ndim == 1]
        w1, w2 = (next(p for p in ws if p.shape[0] == n) for n in (h, nf)) if h != nf else ws
        b1, b2 = (next(p for p in bs if p.shape[0] == n) for n in (h, nf)) if h != nf else bs
        with torch.no_grad():
            for p in layer.parameters(): p.copy_(torch.randn_like(p))   # as they start the ReLU may do little
        before = x.clone()
        out = layer(x)
        if not torch.equal(x, before): raise Wrong(f'{what}: the input is changed in place')
        factors = F.linear(F.relu(F.linear(x.mean((2, 3)), w1, b1)), w2, b2).sigmoid()
        if out.shape == x.shape:
            got = out/x
            if (got - got[:, :, :1, :1]).abs().max() > 1e-3:
                raise Wrong(f'{what}: a channel should have one factor for all its places')
            if not ((got > -1e-4) & (got < 1 + 1e-4)).all():
                raise Wrong(f'{what}: some factors are not between 0 and 1')
        return same(out.detach(), (x*factors[:, :, None, None]).detach(), what)
    yield case(32, 4, (3, 32, 5, 4), 'a map')
    yield case(64, None, (2, 64, 3, 3), 'reduction is 16 if nothing is said')
    yield case(8, 16, (4, 8, 2, 6), 'fewer channels than reduction')
    layer = f(16, 4)
    layer(torch.randn(6, 16, 3, 3)).square().sum().backward()
    yield expect(all(p.grad is not None for p in layer.parameters()), 'gradients reach all its parameters',
                 'some of its parameters get no gradient')


@exercise('10.4', hints=[
    'Twice: norm, ReLU, convolution. And then the sum, with nothing behind it.',
    'Each norm sees what the convolution after it will see, so how many channels has it?',
    'The block passes its input on if the last thing before the sum gives zeros. Here that is a convolution.'])
def PreActBlock(f):
    "A residual block whose shortcut nothing touches."
    nf = 6
    block = f(nf)
    if not isinstance(block, nn.Module): raise Wrong('it should be an nn.Module')
    x = torch.randn(4, nf, 5, 7)
    out = block(x)
    if not isinstance(out, torch.Tensor): raise Wrong('it should give a tensor')
    yield same(out.detach(), x, 'at the start the input passes on, negative numbers too')
    seen = []
    kinds = {nn.Conv2d: 'convolution', nn.BatchNorm2d: 'norm'}
    hooks = [m.register_forward_hook(lambda m, *_: seen.append(m)) for m in block.modules() if type(m) in kinds]
    block(x)
    for h in hooks: h.remove()
    order = ', '.join(kinds[type(m)] for m in seen)
    if order != 'norm, convolution, norm, convolution':
        raise Wrong(f'the layers should follow each other as norm, convolution, norm, convolution; here it is '
                    f'{order or "none of them"}')
    bn1, conv1, bn2, conv2 = seen
    for conv in conv1, conv2:
        if conv.weight.shape != (nf, nf, 3, 3): raise Wrong('both convolutions should be 3x3, from nf to nf channels')
    yield 'the order of the layers'
    yield expect(sum(p.numel() for p in block.parameters()) == 2*9*nf*nf + 4*nf, 'the number of parameters',
                 'it has more or fewer parameters than two 3x3 convolutions without bias and two norms')
    with torch.no_grad():
        for p in block.parameters(): p.copy_(0.5*torch.randn_like(p))
    before = x.clone()
    block(x)
    yield expect(torch.equal(x, before), 'the input is left alone', 'the input is changed in place')
    should = copy.deepcopy(seen)
    def ref(x): return x + should[3](F.relu(should[2](should[1](F.relu(should[0](x))))))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, want = block(ours), ref(theirs)
    yield same(out.detach(), want.detach(), 'the sum, in training')
    weights = torch.rand_like(x)
    grads = [torch.autograd.grad(o, i, weights)[0] for o, i in ((out, ours), (want, theirs))]
    yield same(*grads, 'the gradient', tol=1e-3)
    block.eval()
    for m in should: m.eval()
    yield same(block(x).detach(), ref(x).detach(), 'in evaluation')
