"Right and wrong answers to the exercises of chapter 10b."
import math

import torch


def combine_grads(shares, counts):
    if not sum(counts): raise ValueError('There are no items, so there is no gradient.')
    out = []
    for gs in zip(*shares):
        used = [n*g for n, g in zip(counts, gs) if n and g is not None]
        out.append(sum(used)/sum(counts) if used else None)
    return out

def plain_mean(shares, counts): return [sum(gs)/len(gs) for gs in zip(*shares)]
def not_a_mean(shares, counts): return [sum(n*g for n, g in zip(counts, gs)) for gs in zip(*shares)]
def times_zero(shares, counts): return [sum(n*g for n, g in zip(counts, gs))/sum(counts) for gs in zip(*shares)]
def none_not_counted(shares, counts):
    out = []
    for gs in zip(*shares):
        used = [(n, g) for n, g in zip(counts, gs) if n and g is not None]
        out.append(sum(n*g for n, g in used)/sum(n for n, _ in used) if used else None)
    return out
def stand_in_used(shares, counts):
    out = combine_grads(shares, counts)
    return [torch.zeros_like(next(g for g in gs if g is not None)) if o is None and any(g is not None for g in gs)
            else o for o, gs in zip(out, zip(*shares))]
def zeros_for_none(shares, counts): return [torch.zeros(3) if g is None else g for g in combine_grads(shares, counts)]
def unchecked(shares, counts): return combine_grads(shares, counts) if sum(counts) else [None]*len(shares[0])
def in_place(shares, counts):
    for gs, n in zip(shares, counts):
        for g in gs: g *= n/sum(counts)
    return [sum(gs) for gs in zip(*shares)]


def deal(order, bs, n_ranks, done=0):
    left, whole = order[done:], bs*n_ranks
    return [[left[i:i + whole][r::n_ranks] for r in range(n_ranks)] for i in range(0, len(left), whole)]

def in_blocks(order, bs, n_ranks, done=0):
    left = order[done:]
    batches = [left[i:i + bs] for i in range(0, len(left), bs)]
    steps = [batches[i:i + n_ranks] for i in range(0, len(batches), n_ranks)]
    return [s + [[]]*(n_ranks - len(s)) for s in steps]
def small_batches(order, bs, n_ranks, done=0):
    return [[order[i:i + bs][r::n_ranks] for r in range(n_ranks)] for i in range(done, len(order), bs)]
def stand_ins(order, bs, n_ranks, done=0):
    return [[share or step[0][:1] for share in step] for step in deal(order, bs, n_ranks, done)]
def done_steps(order, bs, n_ranks, done=0): return deal(order, bs, n_ranks)[done:]
def drops_last(order, bs, n_ranks, done=0):
    return [step for step in deal(order, bs, n_ranks, done) if all(len(share) == bs for share in step)]
def no_empty(order, bs, n_ranks, done=0):
    return [[share for share in step if share] for step in deal(order, bs, n_ranks, done)]
def eats(order, bs, n_ranks, done=0):
    out = deal(order, bs, n_ranks, done)
    del order[:]
    return out
def transposed(order, bs, n_ranks, done=0):
    return [[step[r] for step in deal(order, bs, n_ranks, done)] for r in range(n_ranks)]


class MaxError:
    def __init__(self): self.reset()
    def reset(self): self.top = -1.
    def update(self, pred, targ):
        if pred.shape != targ.shape:
            raise ValueError(f'pred has shape {tuple(pred.shape)} and targ {tuple(targ.shape)}; make them equal.')
        self.top = max(self.top, (pred - targ).abs().max().item())
    def compute(self): return self.top if self.top >= 0 else math.nan
    def merge_state(self, others): self.top = max(self.top, *(o.top for o in others))

class Signed(MaxError):
    def update(self, pred, targ):
        if pred.shape != targ.shape: raise ValueError('Shapes differ.')
        self.top = max(self.top, (pred - targ).max().item())
class LastBatch(MaxError):
    def update(self, pred, targ): self.top = (pred - targ).abs().max().item()
class FromZero(MaxError):
    def reset(self): self.top = 0.
class NanFirst(MaxError):
    def reset(self): self.top = math.nan
    def compute(self): return self.top
class Broadcasts(MaxError):
    def update(self, pred, targ): self.top = max(self.top, (pred - targ).abs().max().item())
class Adds(MaxError):
    def merge_state(self, others): self.top += sum(o.top for o in others)
class Gives(MaxError):
    def merge_state(self, others): return max(self.top, *(o.top for o in others))
class Tells(MaxError):
    def merge_state(self, others):
        super().merge_state(others)
        for o in others: o.top = self.top
class MergesComputed(MaxError):
    def merge_state(self, others):
        for o in others: self.top = o.compute() if not o.compute() < self.top else self.top
class NoMerge:
    __init__, reset, update, compute = MaxError.__init__, MaxError.reset, MaxError.update, MaxError.compute


def reduce_in_buckets(params, n_bytes, all_reduce, size):
    buckets, room = [], 0
    for p in reversed([p for p in params if p.grad is not None]):
        if not buckets or p.grad.nbytes > room:
            buckets.append([])
            room = n_bytes
        buckets[-1].append(p)
        room -= p.grad.nbytes
    for bucket in buckets:
        flat = torch.cat([p.grad.flatten() for p in bucket])
        all_reduce(flat)
        for p, g in zip(bucket, flat.split([p.numel() for p in bucket])): p.grad = (g/size).view_as(p)

def one_each(params, n_bytes, all_reduce, size):
    for p in reversed(params):
        g = p.grad.flatten()
        all_reduce(g)
        p.grad = (g/size).view_as(p)
def forwards(params, n_bytes, all_reduce, size): reduce_in_buckets(params[::-1], n_bytes, all_reduce, size)
def bytes_as_floats(params, n_bytes, all_reduce, size): reduce_in_buckets(params, 4*n_bytes, all_reduce, size)
def sums(params, n_bytes, all_reduce, size): reduce_in_buckets(params, n_bytes, all_reduce, 1)
def not_put_back(params, n_bytes, all_reduce, size):
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    for p, q in zip(params, copies): q.grad = p.grad
    reduce_in_buckets(copies, n_bytes, all_reduce, size)
def mixed_up(params, n_bytes, all_reduce, size):
    def backwards(flat):
        all_reduce(flat)
        flat.copy_(flat.flip(0))
    reduce_in_buckets(params, n_bytes, backwards, size)
def one_too_full(params, n_bytes, all_reduce, size):
    bucket, full = [], 0
    def send():
        flat = torch.cat([p.grad.flatten() for p in bucket])
        all_reduce(flat)
        for p, g in zip(bucket, flat.split([p.numel() for p in bucket])): p.grad = (g/size).view_as(p)
        bucket.clear()
    for p in reversed(params):
        bucket.append(p)
        full += p.grad.nbytes
        if full >= n_bytes:
            send()
            full = 0
    if bucket: send()
def always_four_bytes(params, n_bytes, all_reduce, size):
    half = params[0].dtype == torch.float16
    reduce_in_buckets(params, n_bytes//2 if half else n_bytes, all_reduce, size)
def never_larger(params, n_bytes, all_reduce, size):
    buckets, room = [[]], n_bytes
    for p in reversed([p for p in params if p.grad is not None]):
        if p.grad.nbytes > room:
            buckets.append([])
            room = n_bytes
        buckets[-1].append(p)
        room -= p.grad.nbytes
    for bucket in buckets:
        flat = torch.cat([torch.zeros(0), *(p.grad.flatten() for p in bucket)])
        all_reduce(flat)
        for p, g in zip(bucket, flat.split([p.numel() for p in bucket])): p.grad = (g/size).view_as(p)
def weights_too(params, n_bytes, all_reduce, size):
    reduce_in_buckets(params, n_bytes, all_reduce, size)
    for p in params: p.data.div_(size)


right = {'10b.1': combine_grads, '10b.2': deal, '10b.3': MaxError, '10b.4': reduce_in_buckets}
wrong = {
    '10b.1': {'uneven shares [0]: the values': plain_mean, 'even shares [0]: the values': not_a_mean,
              'a stand-in that gave NaN [0]: NaN at 6 of 6': times_zero,
              'some processes did not use [0]': none_not_counted, 'used by the stand-in alone [1]': stand_in_used,
              'a parameter that nobody used [1]': zeros_for_none,
              'no items at all: raises nothing': unchecked, 'changes its argument `shares[0][0]` in place': in_place},
    '10b.2': {'in step 0 process 0 gets [0, 1]': in_blocks, '6 steps instead of 2': small_batches,
              'fewer items than processes: in step 0 process 2 gets [7]': stand_ins,
              'the rest of an epoch: 0 steps': done_steps, 'does not divide: 1 steps instead of 2': drops_last,
              'a list of 3 lists': no_empty, 'a second call with the same arguments': eats,
              '3 steps instead of 2': transposed},
    '10b.3': {'one batch: the value': Signed, 'a second batch with smaller errors': LastBatch,
              'after reset compute gives 0': FromZero, 'one batch': NanFirst,
              'shapes that would broadcast: raises nothing': Broadcasts,
              'merged with two others: the value': (Adds, Gives), 'merge_state changes the others': Tells,
              'merged with one that has seen nothing': MergesComputed, 'it has no `merge_state`': NoMerge},
    '10b.4': {'vectors of 10, 4, 6 numbers are sent, not of 20': one_each,
              'several buckets: vectors of': (forwards, bytes_as_floats, one_too_full),
              'the gradient of parameter 0: the values': (sums, not_put_back, mixed_up),
              'half precision: vectors of 10, 10': always_four_bytes,
              'the last one larger than a bucket: vectors of 0, 20, 2': never_larger,
              'parameter 0 itself has changed': weights_too},
}
