"Right and wrong answers to the exercises of chapter 07."
import copy

import torch
import torch.nn.functional as F
from torch import nn


def conv_transpose2d(x, w, stride=1):
    (bs, ni, h, wd), (_, nf, kh, kw) = x.shape, w.shape
    out = x.new_zeros(bs, nf, (h - 1)*stride + kh, (wd - 1)*stride + kw)
    for i in range(kh):
        for j in range(kw):
            out[:, :, i:i + (h - 1)*stride + 1:stride,
                j:j + (wd - 1)*stride + 1:stride] += torch.einsum('bihw,io->bohw', x, w[:, :, i, j])
    return out

def same_size(x, w, stride=1): return conv_transpose2d(x, w, stride)[..., :x.shape[-2], :x.shape[-1]]
def no_stride(x, w, stride=1): return conv_transpose2d(x, w)
def overwrites(x, w, stride=1):
    (bs, ni, h, wd), (_, nf, kh, kw) = x.shape, w.shape
    out = x.new_zeros(bs, nf, (h - 1)*stride + kh, (wd - 1)*stride + kw)
    for i in range(kh):
        for j in range(kw):
            out[:, :, i:i + (h - 1)*stride + 1:stride,
                j:j + (wd - 1)*stride + 1:stride] = torch.einsum('bihw,io->bohw', x, w[:, :, i, j])
    return out
def flipped(x, w, stride=1): return conv_transpose2d(x, w.flip(2, 3), stride)
def plain_conv(x, w, stride=1): return F.conv2d(x, w.transpose(0, 1), stride=stride, padding=w.shape[-1] - 1)
def without_gradient(x, w, stride=1): return conv_transpose2d(x, w.detach(), stride)


def receptive_field_of(model, size):
    model = nn.Sequential(*copy.deepcopy(list(model)))
    for i, m in enumerate(model):
        if isinstance(m, nn.MaxPool2d): model[i] = nn.AvgPool2d(m.kernel_size, m.stride, m.padding)
        for p in m.parameters(): nn.init.ones_(p)
    x = torch.ones(1, 1, size, size, requires_grad=True)
    out = model(x)
    out[0, 0, out.shape[2]//2, out.shape[3]//2].backward()
    cols = x.grad[0, 0].any(0).nonzero()
    return (cols.max() - cols.min() + 1).item()

def as_it_is(model, size):
    x = torch.randn(1, 1, size, size, requires_grad=True)
    out = model(x)
    g, = torch.autograd.grad(out[0, 0, out.shape[2]//2, out.shape[3]//2], x)
    cols = g[0, 0].any(0).nonzero()
    return (cols.max() - cols.min() + 1).item() if len(cols) else 0
def keeps_max_pools(model, size):
    model = copy.deepcopy(model)
    for p in model.parameters(): nn.init.ones_(p)
    return as_it_is(model, size)
def spoils_the_weights(model, size):
    for p in model.parameters(): nn.init.ones_(p)
    return receptive_field_of(model, size)
def exchanges_pools(model, size):
    for i, m in enumerate(model):
        if isinstance(m, nn.MaxPool2d): model[i] = nn.AvgPool2d(m.kernel_size, m.stride, m.padding)
    return receptive_field_of(model, size)
def leaves_gradients(model, size):
    model(torch.ones(1, 1, size, size)).sum().backward()
    return receptive_field_of(model, size)
def sums_of_kernels(model, size): return 1 + sum(m.kernel_size[0] - 1 for m in model if isinstance(m, nn.Conv2d))
def corner(model, size):
    model = nn.Sequential(*copy.deepcopy(list(model)))
    for p in model.parameters(): nn.init.ones_(p)
    x = torch.ones(1, 1, size, size, requires_grad=True)
    model(x)[0, 0, 0, 0].backward()
    return x.grad[0, 0].any(0).sum().item()


def blur_pool(x, stride=2):
    k = x.new_tensor([1., 2., 1.])
    k = (k[:, None]*k/16).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode='reflect'), k, stride=stride, groups=x.shape[1])

def zero_border(x, stride=2):
    k = x.new_tensor([1., 2., 1.])
    return F.conv2d(x, (k[:, None]*k/16).expand(x.shape[1], 1, 3, 3), stride=stride, padding=1, groups=x.shape[1])
def not_divided(x, stride=2): return 16*blur_pool(x, stride)
def box(x, stride=2): return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode='reflect'), 3, stride)
def mixes_channels(x, stride=2): return blur_pool(x, stride).mean(1, keepdim=True).expand(-1, x.shape[1], -1, -1)
def one_direction(x, stride=2):
    k = x.new_tensor([[[[1., 2., 1.]]]]).expand(x.shape[1], 1, 1, 3)/4
    return F.conv2d(F.pad(x, (1, 1, 0, 0), mode='reflect'), k, stride=stride, groups=x.shape[1])
def always_two(x, stride=2): return blur_pool(x)
def in_float32(x, stride=2): return blur_pool(x.float(), stride)
def no_graph(x, stride=2): return blur_pool(x.detach(), stride)


right = {'07.1': conv_transpose2d, '07.2': receptive_field_of, '07.4': blur_pool}
wrong = {
    '07.1': {'one pixel: shape (1, 1, 1, 1) instead of (1, 1, 3, 3)': same_size, 'stride 2, kernel 3: shape': no_stride,
             'one channel: the values differ': overwrites,
             'one pixel: the values differ': (flipped, plain_conv),
             'the gradient by argument 2 is missing': without_gradient},
    '07.2': {'ReLUs that are off: gives 0': as_it_is, 'an overlapping max pool: gives': keeps_max_pools,
             'changes its argument `model.0.weight` in place': spoils_the_weights,
             'exchanged for good': exchanges_pools, 'have a gradient now': leaves_gradients,
             'strides: gives 7': sums_of_kernels, 'one layer: gives 2': corner},
    '07.4': {'a gray picture stays gray: the values differ': (zero_border, not_divided),
             'one channel: the values differ': (box, one_direction),
             'three channels: the values differ': mixes_channels,
             'stride 1: shape (1, 2, 3, 3) instead of (1, 2, 5, 5)': always_two, 'float64: dtype float32': in_float32,
             'one channel: the gradient is missing': no_graph},
}
