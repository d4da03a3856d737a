"Right and wrong answers to the exercises of chapter 00."
import gzip

import torch


def class_sheet(x, y, n):
    counts = y.bincount(minlength=10)
    for d in range(10):
        if counts[d] < n: raise ValueError(f'There are {counts[d]} pictures of a {d}, fewer than {n}.')
    return torch.stack([x[y == d][:n] for d in range(10)])

def flat_sheet(x, y, n): return class_sheet(x, y, n).flatten(0, 1)
def last_ones(x, y, n): return class_sheet(x.flip(0), y.flip(0), n)
def by_position(x, y, n): return torch.stack([x[n*d:n*d + n] for d in range(10)])
def no_complaint(x, y, n): return torch.stack([torch.cat([x[y == d], x])[:n] for d in range(10)])
def lets_stack_complain(x, y, n): return torch.stack([x[y == d][:n] for d in range(10)])
def names_nothing(x, y, n):
    if (y.bincount(minlength=10) < n).any(): raise ValueError('Too few pictures.')
    return class_sheet(x, y, n)
def always_float(x, y, n): return class_sheet(x, y, n).float()


def mean_and_std(batches):
    n, total, squares = 0, 0., 0.
    for xb in batches:
        xb = xb.double()
        n, total, squares = n + xb.numel(), total + xb.sum().item(), squares + (xb**2).sum().item()
    mean = total/n
    return mean, ((squares - n*mean**2)/(n - 1))**0.5

def mean_of_means(batches):
    means, stds = zip(*((xb.mean(), xb.std()) for xb in batches))
    return torch.stack(means).mean().item(), torch.stack(stds).mean().item()
def by_n(batches):
    x = torch.cat(list(batches)).double()
    return x.mean().item(), x.std(correction=0).item()
def in_float32(batches):
    n, total, squares = 0, torch.zeros(()), torch.zeros(())
    for xb in batches: n, total, squares = n + xb.numel(), total + xb.sum(), squares + (xb**2).sum()
    mean = total/n
    return mean.item(), ((squares - n*mean**2)/(n - 1)).clamp_min(0).sqrt().item()
def two_passes(batches):
    n = sum(xb.numel() for xb in batches)
    mean = sum(xb.sum() for xb in batches)/n
    return mean, (sum(((xb - mean)**2).sum() for xb in batches)/(n - 1))**0.5
def tensors(batches): return torch.tensor(mean_and_std(batches))
def variance(batches):
    mean, std = mean_and_std(batches)
    return mean, std**2


def write_idx(t, path):
    if t.dtype != torch.uint8: raise ValueError(f'An IDX file of bytes needs a uint8 tensor, not {t.dtype}.')
    head = bytes([0, 0, 8, t.ndim]) + b''.join(n.to_bytes(4, 'big') for n in t.shape)
    path.write_bytes(head + bytes(t.flatten().tolist()))

def little_endian(t, path):
    path.write_bytes(bytes([0, 0, 8, t.ndim]) + b''.join(n.to_bytes(4, 'little') for n in t.shape)
                     + bytes(t.flatten().tolist()))
def no_header(t, path): path.write_bytes(bytes(t.flatten().tolist()))
def zipped(t, path):
    write_idx(t, path)
    path.write_bytes(gzip.compress(path.read_bytes()))
def as_it_lies(t, path):
    base = t if t.is_contiguous() else t.t()
    path.write_bytes(bytes([0, 0, 8, t.ndim]) + b''.join(n.to_bytes(4, 'big') for n in t.shape)
                     + bytes(base.flatten().tolist()))
def any_dtype(t, path): write_idx((t*255).byte() if t.is_floating_point() else t, path)
def in_floats(t, path):
    path.write_bytes(bytes([0, 0, 8, t.ndim]) + b''.join(n.to_bytes(4, 'big') for n in t.shape)
                     + t.float().numpy().tobytes())
def keeps_it(t, path): return t


right = {'00.1': class_sheet, '00.2': mean_and_std, '00.3': write_idx}
wrong = {
    '00.1': {'shape (10, 5, 4) instead of (10, 1, 5, 4)': flat_sheet,
             'n = 1: the values differ': (last_ones, by_position), 'a ValueError is due': no_complaint,
             'raises RuntimeError instead of ValueError': lets_stack_complain, 'should name the digit': names_nothing,
             "dtype float32 instead of uint8": always_float},
    '00.2': {'two batches [1]: the value is not right': (variance, by_n),
             'batches of two sizes [0]: the value is not right': mean_of_means,
             'a mean that is large against the std [1]': in_float32,
             'more than once': two_passes, 'instead of a tuple': tensors},
    '00.3': {'the bytes of each length come in the wrong order': little_endian, 'the first three bytes': no_header,
             'is gzipped': zipped, 'a transposed tensor: the values differ': as_it_lies,
             'a float tensor: raises nothing': any_dtype, '20 bytes instead of 11': in_floats,
             'there is no file': keeps_it},
}
