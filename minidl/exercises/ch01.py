"Checks of the exercises of chapter 01."
import torch
from torch.overrides import TorchFunctionMode

from .core import Wrong, exercise, expect, raises, same


@exercise('01.1', hints=[
    'The last axis has stride 1: its neighbors lie side by side. How far apart are two neighbors on the axis '
    'before it?',
    'Going one step along an axis passes over everything that the axes to its right hold.',
    'Go through the shape from the right, and keep a product as you go. The last entry of the shape is never in '
    'it when it is needed first.'])
def strides_of(f):
    "The strides of a contiguous tensor, from its shape."
    shapes = {'a matrix': (3, 4), 'three axes': (2, 3, 4), 'an axis of 1': (5, 1, 7), 'five axes': (2, 3, 4, 5, 6),
              'one axis': (9,), 'a single number': ()}
    for what, shape in shapes.items():
        yield same(f(shape), torch.empty(shape).stride(), what)
    yield same(f(torch.Size((6, 2))), (2, 1), 'a torch.Size')


@exercise('01.2', hints=[
    'Align at the right: read both shapes from their ends. A missing length counts as 1.',
    'Of two lengths that fit, which one does the result have? The larger one is nearly right. Think of a length of 0.',
    'Two lengths do not fit if they differ and neither is 1.'])
def broadcast_shape(f):
    "The shape of two tensors together."
    cases = {'equal shapes': ((2, 3), (2, 3)), 'a missing axis': ((5, 28, 28), (28, 28)),
             'the first is the shorter': ((4,), (3, 1)), 'both are stretched': ((64, 1, 28, 28), (10, 28, 28)),
             'a single number': ((), (2, 3)), 'two single numbers': ((), ()), 'an empty axis': ((1, 3), (0, 1))}
    for what, (a, b) in cases.items():
        yield same(f(a, b), tuple((torch.empty(a) + torch.empty(b)).shape), what)
    yield raises(ValueError, f, (5, 28, 28), (5,), what='lengths that do not fit')
    yield raises(ValueError, f, (2, 3), (3, 3), what='2 and 3 at the left')


@exercise('01.3', hints=[
    '`y_train.unique()` are the labels there are. One mean image for each of them, stacked: (k, h, w).',
    'A table of distances (n, k): the chapter made it by a loop over the means, and by broadcasting.',
    '`argmin` says which of the k means is nearest. That is a position, and not yet a label.'])
def nearest_mean(f):
    "Labels by the nearest mean image."
    def case(labels, n, m, what):
        centers = torch.rand(max(labels) + 1, 6, 5)
        y = torch.tensor(labels).repeat(n)
        x = centers[y] + 0.2*torch.randn(len(y), 6, 5)
        x_valid = torch.cat([centers[y[:m]] + 0.4*torch.randn(m, 6, 5), 2*torch.rand(m, 6, 5)])
        means = {d: x[y == d].mean(0) for d in labels}
        want = torch.tensor([min(labels, key=lambda d: ((im - means[d])**2).mean()) for im in x_valid])
        return same(f(x, y, x_valid), want, what)
    yield case(list(range(10)), 4, 40, 'ten digits')
    yield case(list(range(10)), 1, 1, 'two images')
    yield case([0, 1, 2], 5, 10, 'three digits')
    yield case([3, 7], 12, 24, 'only 3s and 7s')


@exercise('01.5', hints=[
    'A block of the result is a sum over blocks, as a number of the result is a sum over numbers: the three loops'
    ' again, with slices for numbers.',
    '`range(0, n, size)` are the places where blocks begin. A slice that reaches over the end is cut off there, '
    'and it fits the slice it meets, which is cut off as well.',
    'Start from zeros and add every product of two blocks to the place that belongs to it.'])
def matmul_blocked(f):
    "The matrix product, block by block."
    class Watch(TorchFunctionMode):
        largest = 0
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if any(part in getattr(func, '__name__', '') for part in ('matmul', 'mm', 'einsum', 'linear', 'tensordot')):
                self.largest = max([self.largest, *(d for a in args if isinstance(a, torch.Tensor) for d in a.shape)])
            return func(*args, **(kwargs or {}))
    cases = {'one block': (4, 4, 4, 4), 'eight products of blocks': (6, 6, 6, 3), 'not square': (4, 8, 6, 2),
             'lengths that size does not divide': (5, 7, 3, 2), 'a size larger than the matrices': (3, 2, 5, 8),
             'size 1': (2, 3, 2, 1)}
    for what, (n, k, m, size) in cases.items():
        a, b = torch.randn(n, k), torch.randn(k, m)
        with Watch() as watch: got = f(a, b, size)
        same(got, a @ b, what)
        if watch.largest > size:
            raise Wrong(f'{what}: a product of something {watch.largest} long; blocks are {size} by {size}')
        yield what
    a, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    yield same(f(a, b, 2), a @ b, 'float64')
    yield raises(ValueError, f, torch.randn(2, 3), torch.randn(4, 2), 2, what='inner lengths that differ')
