"Right and wrong answers to the exercises of chapter 01."
import torch


def strides_of(shape):
    out, step = [], 1
    for n in reversed(shape):
        out.insert(0, step)
        step *= n
    return tuple(out)

def as_list(shape): return list(strides_of(shape))
def column_major(shape): return strides_of(shape[::-1])[::-1]
def one_off(shape):
    out, step = [], 1
    for n in reversed(shape):
        step *= n
        out.insert(0, step)
    return tuple(out)
def forgets_scalars(shape): return strides_of(shape) or (1,)
def lengths(shape): return tuple(shape[1:]) + (1,)


def broadcast_shape(a, b):
    n = max(len(a), len(b))
    out = []
    for p, q in zip((1,)*(n - len(a)) + tuple(a), (1,)*(n - len(b)) + tuple(b)):
        if p != q and 1 not in (p, q): raise ValueError(f'Shapes {a} and {b} do not fit: {p} meets {q}.')
        out.append(q if p == 1 else p)
    return tuple(out)

def larger(a, b):
    n = max(len(a), len(b))
    return tuple(max(p, q) for p, q in zip((1,)*(n - len(a)) + tuple(a), (1,)*(n - len(b)) + tuple(b)))
def larger_checked(a, b):
    broadcast_shape(a, b)
    return larger(a, b)
def from_the_left(a, b):
    n = max(len(a), len(b))
    return tuple(max(p, q) for p, q in zip(tuple(a) + (1,)*(n - len(a)), tuple(b) + (1,)*(n - len(b))))
def no_checks(a, b):
    n = max(len(a), len(b))
    return tuple(q if p == 1 else p for p, q in zip((1,)*(n - len(a)) + tuple(a), (1,)*(n - len(b)) + tuple(b)))
def cut_to_the_shorter(a, b): return tuple(max(p, q) for p, q in zip(a[::-1], b[::-1]))[::-1]
def asks_torch(a, b): return tuple(torch.broadcast_shapes(a, b))


def nearest_mean(x_train, y_train, x_valid):
    labels = y_train.unique()
    means = torch.stack([x_train[y_train == d].mean(0) for d in labels])
    return labels[((x_valid[:, None] - means)**2).mean((-1, -2)).argmin(1)]

def positions(x_train, y_train, x_valid):
    means = torch.stack([x_train[y_train == d].mean(0) for d in y_train.unique()])
    return ((x_valid[:, None] - means)**2).mean((-1, -2)).argmin(1)
def by_l1(x_train, y_train, x_valid):
    labels = y_train.unique()
    means = torch.stack([x_train[y_train == d].mean(0) for d in labels])
    return labels[(x_valid[:, None] - means).abs().mean((-1, -2)).argmin(1)]
def always_ten(x_train, y_train, x_valid):
    means = torch.stack([x_train[y_train == d].mean(0) for d in range(10)])
    return ((x_valid[:, None] - means)**2).mean((-1, -2)).nan_to_num(-1).argmin(1)
def wrong_axis(x_train, y_train, x_valid):
    labels = y_train.unique()
    means = torch.stack([x_train[y_train == d].mean(0) for d in labels])
    return labels[((x_valid[:, None] - means)**2).mean((-1, -2)).argmin(0)]
def distances(x_train, y_train, x_valid): return ((x_valid[:, None] - x_train)**2).mean((-1, -2))
def nearest_neighbor(x_train, y_train, x_valid): return y_train[distances(x_train, y_train, x_valid).argmin(1)]


def matmul_blocked(a, b, size):
    (n, k), (k2, m) = a.shape, b.shape
    if k != k2: raise ValueError(f'matmul of ({n}, {k}) and ({k2}, {m}): the inner lengths must be equal.')
    c = a.new_zeros(n, m)
    for i in range(0, n, size):
        for j in range(0, m, size):
            for l in range(0, k, size): c[i:i+size, j:j+size] += a[i:i+size, l:l+size] @ b[l:l+size, j:j+size]
    return c

def all_at_once(a, b, size):
    if a.shape[1] != b.shape[0]: raise ValueError('inner lengths')
    return a @ b
def strips(a, b, size): return torch.cat([a[i:i+size] @ b for i in range(0, len(a), size)])
def overwrites(a, b, size):
    c = torch.zeros(a.shape[0], b.shape[1])
    for i in range(0, a.shape[0], size):
        for j in range(0, b.shape[1], size):
            for l in range(0, a.shape[1], size): c[i:i+size, j:j+size] = a[i:i+size, l:l+size] @ b[l:l+size, j:j+size]
    return c
def leaves_out_the_rest(a, b, size):
    c = a.new_zeros(a.shape[0], b.shape[1])
    for i in range(0, a.shape[0] - size + 1, size):
        for j in range(0, b.shape[1] - size + 1, size):
            for l in range(0, a.shape[1] - size + 1, size):
                c[i:i+size, j:j+size] += a[i:i+size, l:l+size] @ b[l:l+size, j:j+size]
    return c
def only_float32(a, b, size): return matmul_blocked(a.float(), b.float(), size)
def no_error(a, b, size): return matmul_blocked(a[:, :len(b)], b[:a.shape[1]], size)


right = {'01.1': strides_of, '01.2': broadcast_shape, '01.3': nearest_mean, '01.5': matmul_blocked}
wrong = {
    '01.1': {'a matrix: gives a list of 2 instead of a tuple': as_list,
             'a matrix [0]: gives 1, which is not right': column_major, 'a matrix [0]: gives 12': one_off,
             'a single number: gives a tuple of 1 instead of 0': forgets_scalars, 'three axes [0]: gives 3': lengths},
    '01.2': {'an empty axis [0]: gives 1': larger_checked, 'a missing axis [0]: gives 28': from_the_left,
             'raises nothing, where a ValueError is due': no_checks,
             'a missing axis: gives a tuple of 2 instead of 3': cut_to_the_shorter,
             'raises RuntimeError instead of ValueError': asks_torch, 'an empty axis [0]': larger},
    '01.3': {'only 3s and 7s: the values differ at': positions, 'three digits: the values differ at': always_ten,
             'ten digits: the values differ': (by_l1, nearest_neighbor), 'raises IndexError': wrong_axis,
             'ten digits: shape (80, 40) instead of (80,)': distances},
    '01.5': {'eight products of blocks: a product of something 6 long': (all_at_once, strips),
             'eight products of blocks: the values differ at 36 of 36': overwrites,
             'lengths that size does not divide: the values differ': leaves_out_the_rest,
             'float64: dtype float32': only_float32, 'inner lengths that differ: raises nothing': no_error},
}
