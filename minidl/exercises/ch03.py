"Checks of the exercises of chapter 03."
import math

import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, same


@exercise('03.1', hints=[
    'It is the first cell of the chapter, with another test for the end: a number may be infinite before one is NaN.',
    '`isfinite` is false for both. Count the steps from 1, and return the count, not the vector.',
    'A vector that has shrunk to zeros is finite, and stays so.'])
def nan_step(f):
    "The step at which a chain of random products stops being finite."
    def between(low, high, what, *args, **kwargs):
        step = f(*args, **kwargs)
        if step is None: raise Wrong(f'{what}: gives None, though the numbers do overflow within the steps allowed')
        if isinstance(step, bool) or not isinstance(step, int):
            raise Wrong(f'{what}: it should give an int, and gives a {type(step).__name__}')
        if not low <= step <= high: raise Wrong(f'{what}: {step} is too {"early" if step < low else "late"}')
        return what
    yield between(41, 45, '64 numbers', 64)
    yield between(31, 33, '256 numbers', 256)
    yield between(15, 18, 'a scale of 30', 64, 30.)
    yield same(f(64, 1., 20), None, 'no overflow within max_steps')
    yield same(f(64, 0.01, max_steps=150), None, 'numbers that vanish')
    yield same(f(64, 1/8, max_steps=60), None, 'numbers that keep their scale')
    yield between(1, 1, 'at once', 64, 1e38)


@exercise('03.2', hints=[
    'The gain undoes what the function does to the second moment of numbers of mean 0 and std 1.',
    'Draw such numbers, apply the function, and take the mean of the squares. The variance would be another '
    'thing: the next layer asks for the second moment.',
    'The second moment goes with the square of a factor on the weights. And a tensor of one number is no float.'])
def gain_of(f):
    "The gain of any activation function, by simulation."
    def case(act, want, what, tol=0.02): return same(f(act), want, what, tol=tol)
    yield case(lambda x: x, 1., 'no function at all')
    yield case(F.relu, math.sqrt(2), 'ReLU')
    yield case(lambda x: F.leaky_relu(x, 0.5), math.sqrt(2/1.25), 'a leaky ReLU')
    yield case(F.gelu, 1.5335, 'GELU')
    yield case(F.selu, 1., 'SELU')
    yield case(lambda x: 3*x, 1/3, 'three times as much')
    yield case(lambda x: torch.full_like(x, 0.5), 2., 'a constant')
    yield same(f(F.relu, n_samples=100_000), math.sqrt(2), 'fewer samples', tol=0.05)
    drawn = []
    f(lambda x: drawn.append(x.numel()) or x, n_samples=1000)
    yield expect(sum(drawn) == 1000, 'n_samples', 'with n_samples=1000 the function should be asked for 1000 numbers')


@exercise('03.3', hints=[
    'The cell of the section "Fans of a convolution" that counts with ones does it for one layer. What has to be '
    'the same for any: the number of channels, the size, the bias?',
    'The middle of the output and the middle of the picture are not of one size if the stride is not 1. A quarter'
    ' from each side is far from any border.',
    'Work on a deepcopy, or call `F.conv2d` with ones of the shape of the weight: then the layer stays as it is. '
    'The bias is no term of the sum.'])
def count_fans(f):
    "Fan in and fan out of any convolution, counted."
    def case(what, n_in, n_out, k, tol=0.02, size=None, **kwargs):
        conv = nn.Conv2d(n_in, n_out, k, **kwargs)
        stride, groups = conv.stride[0], conv.groups
        got = f(conv) if size is None else f(conv, size=size)
        same(got, (float(n_in//groups*k*k), float(n_out//groups*k*k/stride**2)), what, tol=tol)
        if conv.weight.grad is not None: raise Wrong(f"{what}: a gradient is left behind in the layer's weight")
        if not conv.weight.requires_grad: raise Wrong(f"{what}: the layer's weight no longer asks for gradients")
        return what
    yield case('the layer of the chapter', 3, 8, 5, padding=2, bias=False)
    yield case('a bias', 4, 6, 3, padding=1)
    yield case('no padding', 4, 6, 3)
    yield case('stride 2', 3, 8, 3, tol=0.1, stride=2, padding=1)
    yield case('stride 3', 2, 4, 3, tol=0.15, stride=3)
    yield case('groups', 8, 16, 3, padding=1, groups=4)
    yield case('dilation', 2, 3, 3, dilation=2)
    yield case('a smaller picture', 2, 3, 3, size=32)


@exercise('03.4', hints=[
    'A weight of a convolution becomes a matrix by `flatten(1)`. Fill a matrix, then copy it into `w` with its '
    'own shape.',
    '`torch.linalg.qr` of a random matrix gives perpendicular columns, as many as the smaller of the two lengths '
    'if the matrix is tall. What do you do with a wide one?',
    'All that under `no_grad`, with numbers drawn by `generator`; at the end `w` itself is returned.'], inplace=True)
def orthogonal_(f):
    "Orthogonal weights, by a QR decomposition."
    def case(w, what, gain=1.):
        before = w.detach().clone()
        got = f(w) if gain == 1. else f(w, gain)
        if got is not w: raise Wrong(f'{what}: it should fill `w` and return `w` itself')
        if torch.equal(before, w): raise Wrong(f'{what}: `w` is as it was')
        if w.requires_grad and not w.is_leaf:
            raise Wrong(f'{what}: the filling was recorded by autograd; that is what no_grad is for')
        m = w.detach().flatten(1)
        wide = m.shape[0] <= m.shape[1]
        products = m @ m.t() if wide else m.t() @ m
        lengths = products.diagonal()
        if (lengths - gain**2).abs().max() > 1e-3:
            length = lengths[(lengths - gain**2).abs().argmax()].sqrt()
            raise Wrong(f'{what}: {"rows" if wide else "columns"} of length {length:.3g} with gain {gain:g}')
        if (products - lengths.diag()).abs().max() > 1e-3:
            raise Wrong(f'{what}: the {"rows" if wide else "columns"} are not perpendicular')
        return what
    yield case(torch.ones(5, 5), 'a square')
    yield case(torch.ones(4, 7), 'fewer rows than columns')
    yield case(torch.ones(7, 4), 'more rows than columns')
    yield case(torch.ones(8, 3, 3, 3), 'a convolution')
    yield case(torch.ones(40, 2, 3, 3), 'a convolution with more rows than columns')
    yield case(torch.ones(6, 9), 'a gain', gain=1.5)
    yield case(nn.Linear(6, 4).weight, 'a parameter of a layer')
    a, b = torch.ones(4, 6), torch.ones(4, 6)
    f(a, generator=torch.Generator().manual_seed(3))
    torch.rand(1)
    f(b, generator=torch.Generator().manual_seed(3))
    yield same(a, b, 'the same generator twice')
    f(b)
    yield expect(not torch.allclose(a, b), 'random', 'it gives the same weights every time')
