"Right and wrong answers to the exercises of chapter 03."
import copy
import math

import torch
import torch.nn.functional as F
from torch import nn


def nan_step(n, scale=1., max_steps=1000):
    x = torch.randn(n)
    for step in range(1, max_steps + 1):
        x = torch.randn(n, n)*scale @ x
        if not x.isfinite().all(): return step

def counts_from_zero(n, scale=1., max_steps=1000):
    step = nan_step(n, scale, max_steps)
    return None if step is None else step - 1
def last_step(n, scale=1., max_steps=1000): return nan_step(n, scale, max_steps) or max_steps
def no_scale(n, scale=1., max_steps=1000): return nan_step(n, 1., max_steps)
def in_double(n, scale=1., max_steps=1000):
    x = torch.randn(n, dtype=torch.float64)
    for step in range(1, max_steps + 1):
        x = torch.randn(n, n, dtype=torch.float64)*scale @ x
        if not x.isfinite().all(): return step
def scales_the_vector(n, scale=1., max_steps=1000):
    x = torch.randn(n)*scale
    for step in range(1, max_steps + 1):
        x = torch.randn(n, n) @ x
        if not x.isfinite().all(): return step
def as_tensor(n, scale=1., max_steps=1000): return torch.tensor(nan_step(n, scale, max_steps) or 0)
def zeros_too(n, scale=1., max_steps=1000):
    x = torch.randn(n)
    for step in range(1, max_steps + 1):
        x = torch.randn(n, n)*scale @ x
        if not x.isfinite().all() or x.abs().max() == 0: return step


def gain_of(act, n_samples=1_000_000): return 1/act(torch.randn(n_samples)).pow(2).mean().sqrt().item()

def by_variance(act, n_samples=1_000_000): return 1/act(torch.randn(n_samples)).std().item()
def no_root(act, n_samples=1_000_000): return 1/act(torch.randn(n_samples)).pow(2).mean().item()
def upside_down(act, n_samples=1_000_000): return act(torch.randn(n_samples)).pow(2).mean().sqrt().item()
def uniform(act, n_samples=1_000_000):
    return 1/act(torch.rand(n_samples)*2 - 1).pow(2).mean().sqrt().item()/math.sqrt(3)
def a_tensor(act, n_samples=1_000_000): return 1/act(torch.randn(n_samples)).pow(2).mean().sqrt()
def always_a_million(act, n_samples=1_000_000): return gain_of(act)


def count_fans(conv, size=64):
    conv = copy.deepcopy(conv).requires_grad_(False)
    conv.weight.fill_(1.)
    if conv.bias is not None: conv.bias.zero_()
    im = torch.ones(1, conv.in_channels, size, size, requires_grad=True)
    out = conv(im)
    out.sum().backward()
    def middle(t): return t[..., t.shape[-2]//4:-t.shape[-2]//4, t.shape[-1]//4:-t.shape[-1]//4].mean().item()
    return middle(out), middle(im.grad)

def from_the_shape(conv, size=64):
    w = conv.weight
    return float(w[0].numel()), float(len(w)*w[0, 0].numel())
def with_bias(conv, size=64):
    conv = copy.deepcopy(conv)
    nn.init.ones_(conv.weight)
    if conv.bias is not None: nn.init.ones_(conv.bias)
    im = torch.ones(1, conv.in_channels, size, size, requires_grad=True)
    out = conv(im)
    out.sum().backward()
    middle = slice(size//4, 3*size//4)
    return out[0, 0, out.shape[2]//2, out.shape[3]//2].item(), im.grad[..., middle, middle].mean().item()
def spoils_the_layer(conv, size=64):
    nn.init.ones_(conv.weight)
    return count_fans(conv, size)
def whole_picture(conv, size=64):
    w = torch.ones_like(conv.weight)
    im = torch.ones(1, conv.in_channels, size, size, requires_grad=True)
    out = F.conv2d(im, w, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    out.sum().backward()
    return out.mean().item(), im.grad.mean().item()
def one_pixel(conv, size=64):
    w = torch.ones_like(conv.weight)
    im = torch.ones(1, conv.in_channels, size, size, requires_grad=True)
    out = F.conv2d(im, w, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    out.sum().backward()
    return out[0, 0, out.shape[2]//2, out.shape[3]//2].item(), im.grad[0, 0, size//2, size//2].item()
def leaves_a_gradient(conv, size=64):
    fans = count_fans(conv, size)
    conv.weight.grad = torch.zeros_like(conv.weight)
    return fans
def swapped(conv, size=64): return count_fans(conv, size)[::-1]


def orthogonal_(w, gain=1., generator=None):
    with torch.no_grad():
        m = w.flatten(1)
        rows, cols = m.shape
        q = torch.linalg.qr(torch.randn(max(rows, cols), min(rows, cols), generator=generator))[0]
        return w.copy_((q if rows >= cols else q.t()).reshape(w.shape)*gain)

def only_columns(w, gain=1., generator=None):
    with torch.no_grad():
        m = torch.randn(w.flatten(1).shape, generator=generator)
        q = torch.linalg.qr(m)[0]
        w.flatten(1)[:, :q.shape[1]] = q*gain
        return w
def a_new_one(w, gain=1., generator=None): return orthogonal_(w.clone(), gain, generator)
def unit_rows(w, gain=1., generator=None):
    with torch.no_grad():
        m = torch.randn(w.flatten(1).shape, generator=generator)
        return w.copy_((F.normalize(m, dim=1 if m.shape[0] <= m.shape[1] else 0)*gain).view_as(w))
def no_gain(w, gain=1., generator=None): return orthogonal_(w, 1., generator)
def gain_squared(w, gain=1., generator=None): return orthogonal_(w, gain**0.5, generator)
def recorded(w, gain=1., generator=None): return w.copy_(orthogonal_(w.detach().clone(), gain, generator))
def ignores_the_generator(w, gain=1., generator=None): return orthogonal_(w, gain)
def not_random(w, gain=1., generator=None): return orthogonal_(w, gain, torch.Generator().manual_seed(0))


right = {'03.1': nan_step, '03.2': gain_of, '03.3': count_fans, '03.4': orthogonal_}
wrong = {
    '03.1': {'at once: 0 is too early': counts_from_zero,
             'no overflow within max_steps: gives an int instead of None': last_step,
             'a scale of 30: 4': (no_scale, scales_the_vector),
             '64 numbers: 3': in_double, 'it should give an int, and gives a Tensor': as_tensor,
             'numbers that vanish: gives an int': zeros_too},
    '03.2': {'ReLU: the value is not right': (by_variance, no_root, upside_down),
             'GELU: the value is not right': uniform, 'a tensor of shape () instead of a float (`.item()`': a_tensor,
             'asked for 1000 numbers': always_a_million},
    '03.3': {'stride 2 [1]: the value': (from_the_shape, one_pixel), 'a bias [0]: the value': with_bias,
             'changes its argument `conv.weight` in place': spoils_the_layer,
             'the layer of the chapter [0]: the value': (whole_picture, swapped),
             'a gradient is left behind': leaves_a_gradient},
    '03.4': {'fewer rows than columns': only_columns, 'fill `w` and return `w` itself': a_new_one,
             'a square: the rows are not perpendicular': unit_rows, 'a gain: rows of length 1': (no_gain, gain_squared),
             'raises RuntimeError: a leaf Variable': recorded,
             'the same generator twice: the values differ': ignores_the_generator,
             'the same weights every time': not_random},
}
