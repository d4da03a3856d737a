"Checks of the exercises of chapter 00."
import tempfile
from pathlib import Path

import torch

from .core import Wrong, exercise, expect, raises, same


@exercise('00.1', hints=[
    '`x[y == 3]` are all the threes, in their order. A slice takes the first few of them.',
    '`torch.stack` makes one tensor of a list of tensors that have the same shape.',
    'Which of the ten has too few? Compare lengths before you stack.'])
def class_sheet(f):
    "The first pictures of each digit as one tensor."
    y = torch.cat([torch.arange(10), torch.randint(0, 10, (50,)), torch.arange(10)])[torch.randperm(70)]
    x = torch.rand(70, 5, 4)
    for n in 1, 2:
        want = torch.stack([torch.stack([im for im, label in zip(x, y) if label == d][:n]) for d in range(10)])
        yield same(f(x, y, n), want, f'n = {n}')
    yield same(f((255*x).byte(), y, 1), f((255*x), y, 1).byte(), 'pictures of bytes')
    y[y == 6] = 7
    y[0] = 6
    yield raises(ValueError, f, x, y, 2, what='a digit with too few pictures')
    try: f(x, y, 2)
    except ValueError as e:
        yield expect('6' in str(e), 'the digit is named',
                     'the message should name the digit of which there are too few')


@exercise('00.2', hints=[
    'What has to be remembered of a batch so that it can be let go? How many pixels there were, and two sums.',
    'The mean of batch means is wrong if the batches are not of one size. The variance is the mean of the squares'
    ' minus the square of the mean.',
    '`x.std()` divides by one less than the number of pixels. And the squares of large numbers need more digits '
    'than float32 has.'])
def mean_and_std(f):
    "Mean and standard deviation of pictures that come in batches."
    class Stream:
        def __init__(self, batches): self.batches, self.asked = iter(batches), 0
        def __iter__(self):
            self.asked += 1
            return self.batches
    def case(x, sizes, what):
        stream = Stream(x.split(sizes))
        got = f(stream)
        if stream.asked > 1:
            raise Wrong(f'{what}: goes through the batches more than once, and the second time none are left')
        return same(got, (x.double().mean().item(), x.double().std().item()), what, tol=1e-3)
    yield case(torch.rand(6, 3, 4), [3, 3], 'two batches')
    yield case(torch.rand(7, 3, 4)*torch.linspace(0, 1, 7)[:, None, None], [5, 2], 'batches of two sizes')
    yield case(torch.rand(1, 2, 2), [1], 'one small batch')
    yield case(1000 + 0.5*torch.randn(90, 10, 10), [40, 40, 10], 'a mean that is large against the std')


@exercise('00.3', hints=[
    'The file is the four bytes 0, 0, 8 and the number of dimensions, then each dimension as four bytes, then the'
    ' pixels.',
    '`int.to_bytes` is the opposite of the `int.from_bytes` in this chapter; mind which byte comes first.',
    '`bytes(t.flatten().tolist())` are the pixels in the right order, however the tensor lies in memory.'])
def write_idx(f):
    "A tensor written as an IDX file."
    def read(path, what):
        data = path.read_bytes() if path.exists() else None
        if data is None: raise Wrong(f'{what}: there is no file at `path`')
        if data[:2] == b'\x1f\x8b': raise Wrong(f'{what}: the file is gzipped; write the plain bytes')
        if data[:3] != b'\0\0\x08':
            raise Wrong(f'{what}: the first three bytes are not those of an IDX file of unsigned bytes')
        if len(data) < 4 or data[3] != t.ndim: raise Wrong(f'{what}: the fourth byte is not the number of dimensions')
        head = 4 + 4*t.ndim
        shape = tuple(int.from_bytes(data[4+4*i:8+4*i], 'big') for i in range(t.ndim))
        if shape != t.shape:
            turned = tuple(int.from_bytes(data[4+4*i:8+4*i], 'little') for i in range(t.ndim)) == t.shape
            why = ': the bytes of each length come in the wrong order' if turned else ''
            raise Wrong(f'{what}: the header says shape {shape}{why}')
        if len(data) != head + t.numel(): raise Wrong(f'{what}: {len(data)} bytes instead of {head + t.numel()}')
        return same(torch.tensor(list(data[head:]), dtype=torch.uint8).view(t.shape), t, what)
    with tempfile.TemporaryDirectory() as folder:
        shapes = {'one axis': (3,), 'two axes': (2, 5), 'pictures': (4, 28, 28), 'more than 255': (300, 1, 2)}
        for i, (what, shape) in enumerate(shapes.items()):
            t = torch.randint(0, 256, shape, dtype=torch.uint8)
            f(t, Path(folder)/f'{i}-ubyte')
            yield read(Path(folder)/f'{i}-ubyte', what)
        t = torch.randint(0, 256, (5, 3), dtype=torch.uint8).t()
        f(t, Path(folder)/'transposed-ubyte')
        yield read(Path(folder)/'transposed-ubyte', 'a transposed tensor')
        yield raises(ValueError, f, torch.rand(2, 2), Path(folder)/'float-ubyte', what='a float tensor')
        yield expect(not (Path(folder)/'float-ubyte').exists(), 'nothing is written then',
                     'a float tensor is refused, but a file is left behind')
