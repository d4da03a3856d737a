"Checks of the exercises of chapter 07."
import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, same, same_grads


@exercise('07.1', hints=[
    'How large is the output? The last input pixel begins at (h - 1)*stride, and spreads over k rows from there.',
    'As in `conv2d`: a loop over the k*k places of the kernel. Here each place says where in the output all input'
    ' pixels go at once.',
    'A slice with a step of `stride` takes every place that they go to. Multiply and add up the channels with '
    '`einsum`, and add the result to what is there.'])
def conv_transpose2d(f):
    "A convolution turned around: pixels spread over windows."
    cases = {'one pixel': ((1, 1, 1, 1), 1, 3), 'one channel': ((1, 1, 5, 5), 1, 3),
             'channels, not square': ((2, 3, 4, 6), 5, 3), 'a 1x1 kernel': ((2, 3, 4, 4), 2, 1),
             'an even kernel': ((1, 2, 3, 4), 3, 2)}
    for what, (shape, nf, k) in cases.items():
        yield same_grads(f, F.conv_transpose2d, torch.randn(shape), torch.randn(shape[1], nf, k, k), what=what)
    for stride, k in (2, 3), (3, 3), (3, 2):
        what = f'stride {stride}, kernel {k}'
        def ours(x, w): return f(x, w, stride=stride)
        def theirs(x, w): return F.conv_transpose2d(x, w, stride=stride)
        yield same_grads(ours, theirs, torch.randn(2, 3, 4, 5), torch.randn(3, 2, k, k), what=what)


@exercise('07.2', hints=[
    'Backward from one number in the middle of the output: where is the gradient of the input not zero? From the '
    'first such column to the last.',
    'Gradients of random weights may cancel, a ReLU may be off, and a max pool lets only its winner through. None'
    ' of that belongs to the field. Which weights and which inputs cannot cancel, and which pooling lets all '
    'through?',
    'Work on a deepcopy: all weights positive, and every max pool exchanged for an average pool of the same size,'
    ' stride and padding.'])
def receptive_field_of(f):
    "The width that an output unit sees, measured."
    def conv(ni, nf, k, **kwargs): return nn.Conv2d(ni, nf, k, padding=k//2, **kwargs)
    cases = {'one layer': ([conv(1, 4, 3)], 3), 'three layers': ([conv(1, 4, 3), conv(4, 4, 3), conv(4, 2, 3)], 7),
             'a large kernel': ([conv(1, 2, 7), conv(2, 2, 5)], 11),
             'strides': ([conv(1, 4, 3, stride=2), conv(4, 4, 3, stride=2), conv(4, 4, 3)], 15),
             'ReLUs that are off': ([conv(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), conv(4, 1, 3)], 5),
             'max pooling': ([conv(1, 4, 3), nn.MaxPool2d(2), conv(4, 4, 3)], 8),
             'average pooling': ([nn.AvgPool2d(4), conv(1, 2, 3)], 12),
             'an overlapping max pool': ([conv(1, 2, 3), nn.MaxPool2d(3, stride=2, padding=1), conv(2, 2, 3)], 9),
             'dilation': ([nn.Conv2d(1, 2, 3, dilation=3)], 7)}
    for what, (layers, width) in cases.items():
        model = nn.Sequential(*layers)
        for m in model:
            if 'off' in what and isinstance(m, nn.Conv2d): nn.init.constant_(m.bias, -10.)
        got = f(model, 65)
        yield same(got, width, what)
    yield same(f(nn.Sequential(conv(1, 2, 3), conv(2, 2, 3)), 32), 5, 'an even size')
    model = nn.Sequential(conv(1, 2, 3), nn.MaxPool2d(2))
    f(model, 16)
    if not isinstance(model[1], nn.MaxPool2d):
        raise Wrong('the max pool of the model is exchanged for good; work on a deepcopy')
    yield expect(all(p.grad is None and p.requires_grad for p in model.parameters()), 'the model as before',
                 'the parameters of the model have a gradient now, or no longer ask for one')


@exercise('07.4', hints=[
    'The kernel is the outer product of (1, 2, 1) with itself. By what must it be divided so that a gray picture '
    'stays as it is?',
    'Each channel by itself: that is `groups`, and a weight of shape (channels, 1, 3, 3).',
    '`F.pad` has a mode that mirrors the picture at its border; then the convolution needs no padding of its own.'])
def blur_pool(f):
    "A pooling that blurs before it leaves out."
    def ref(x, stride=2):
        k = torch.tensor([1., 2., 1.], dtype=x.dtype)
        k = (k[:, None]*k/16).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode='reflect'), k, stride=stride, groups=x.shape[1])
    yield same(f(torch.ones(1, 2, 6, 6)), torch.ones(1, 2, 3, 3), 'a gray picture stays gray')
    yield same_grads(f, ref, torch.randn(2, 1, 8, 8), what='one channel')
    yield same_grads(f, ref, torch.randn(2, 3, 8, 6), what='three channels')
    yield same_grads(f, ref, torch.randn(1, 2, 7, 5), what='odd sizes')
    yield same_grads(lambda x: f(x, stride=1), lambda x: ref(x, 1), torch.randn(1, 2, 5, 5), what='stride 1')
    gray = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    yield same(f(gray), gray[..., :2, :2], 'float64')
