"Right and wrong answers to the exercises of chapter 04."
import torch
import torch.nn.functional as F

from minidl.training import EpochBatches, mix_seed


def log_sigmoid(z): return torch.minimum(z, torch.zeros_like(z)) - torch.log1p((-z.abs()).exp())

def as_the_words_say(z): return z.sigmoid().log()
def overflows(z): return -(1 + (-z).exp()).log()
def bad_gradient(z): return torch.where(z > -20, -torch.log1p((-z).exp()), z)
def one_at_zero(z): return z.clamp_max(0.) - (1 + (-z.abs()).exp()).log()
def cut_off(z): return F.logsigmoid(z.detach())
def minus(z): return -log_sigmoid(z)
def flat(z): return log_sigmoid(z).flatten()


def collate_padded(items, pad=0):
    ids, labels = zip(*items)
    xb = ids[0].new_full((len(ids), max(map(len, ids))), pad)
    for row, one in zip(xb, ids): row[:len(one)] = one
    return xb, torch.tensor([int(label) for label in labels])

def pads_left(items, pad=0):
    xb, yb = collate_padded(items, pad)
    return torch.stack([row.roll(xb.shape[1] - len(one)) for row, (one, _) in zip(xb, items)]), yb
def always_zero(items, pad=0): return collate_padded(items)
def cuts(items, pad=0):
    n = min(len(one) for one, _ in items)
    return torch.stack([one[:n] for one, _ in items]), torch.tensor([int(y) for _, y in items])
def in_floats(items, pad=0):
    xb, yb = collate_padded(items, pad)
    return xb.float(), yb
def lists(items, pad=0):
    xb, yb = collate_padded(items, pad)
    return xb, yb.tolist()
def only_ids(items, pad=0): return collate_padded(items, pad)[0]
def always_int64(items, pad=0):
    xb, yb = collate_padded(items, pad)
    return xb.long(), yb
def columns(items, pad=0):
    xb, yb = collate_padded(items, pad)
    return xb.t(), yb
def fixed_width(items, pad=0):
    xb, yb = collate_padded(items, pad)
    return F.pad(xb, (0, 10 - xb.shape[1]), value=pad), yb


class SGDMomentum:
    def __init__(self, params, lr, mom):
        self.params, self.lr, self.mom = list(params), lr, mom
        self.v = [torch.zeros_like(p) for p in self.params]
    def step(self):
        with torch.no_grad():
            for p, v in zip(self.params, self.v):
                if p.grad is None: continue
                v.mul_(self.mom).add_(p.grad)
                p -= self.lr*v
    def zero_grad(self):
        for p in self.params: p.grad = None

class NoMomentum(SGDMomentum):
    def __init__(self, params, lr, mom): super().__init__(params, lr, 0.)
class Dampened(SGDMomentum):
    def step(self):
        with torch.no_grad():
            for p, v in zip(self.params, self.v):
                if p.grad is None: continue
                v.mul_(self.mom).add_((1 - self.mom)*p.grad)
                p -= self.lr*v
class OldSum(SGDMomentum):
    def step(self):
        with torch.no_grad():
            for p, v in zip(self.params, self.v):
                if p.grad is None: continue
                if self.mom == 0: v.copy_(p.grad)
                p -= self.lr*v
                v.mul_(self.mom).add_(p.grad)
class KeepsGenerator(SGDMomentum):
    def __init__(self, params, lr, mom):
        self.params, self.lr, self.mom = params, lr, mom
        self.v = [torch.zeros_like(p) for p in params]
class StepsUseItUp(SGDMomentum):
    def __init__(self, params, lr, mom): self.params, self.lr, self.mom, self.v = params, lr, mom, {}
    def step(self):
        with torch.no_grad():
            for p in self.params:
                if p.grad is None: continue
                self.v[p] = self.mom*self.v.get(p, 0) + p.grad
                p -= self.lr*self.v[p]
class NeverSteps(SGDMomentum):
    def step(self): pass
class NeedsGradients(SGDMomentum):
    def step(self):
        with torch.no_grad():
            for p, v in zip(self.params, self.v):
                v.mul_(self.mom).add_(p.grad)
                p -= self.lr*v
class KeepsGradients(SGDMomentum):
    def zero_grad(self): pass
class Recorded(SGDMomentum):
    def step(self):
        for p, v in zip(self.params, self.v): p -= self.lr*(self.mom*v + p.grad)
class OneSumForAll(SGDMomentum):
    sums = {}
    def __init__(self, params, lr, mom):
        super().__init__(params, lr, mom)
        self.v = [self.sums.setdefault((mom, p.shape), torch.zeros_like(p)) for p in self.params]
class HalfWritten(SGDMomentum):
    def zero_grad(self): raise NotImplementedError


class StratifiedBatches(EpochBatches):
    def __init__(self, targ, bs, seed=0):
        super().__init__(len(targ), bs, shuffle=True, seed=seed)
        self.targ = targ
    def order(self, epoch):
        g = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        place = torch.empty(self.n)
        for c in self.targ.unique():
            idx = (self.targ == c).nonzero()[:, 0]
            place[idx] = (torch.randperm(len(idx), generator=g) + torch.rand(1, generator=g))/len(idx)
        return place.argsort()

class PlainBatches(EpochBatches):
    def __init__(self, targ, bs, seed=0): super().__init__(len(targ), bs, shuffle=True, seed=seed)
class ByClass(PlainBatches):
    def __init__(self, targ, bs, seed=0): super().__init__(targ, bs, seed); self.targ = targ
    def order(self, epoch): return self.targ.argsort()
class FromTheGlobal(StratifiedBatches):
    def order(self, epoch):
        place = torch.empty(self.n)
        for c in self.targ.unique():
            idx = (self.targ == c).nonzero()[:, 0]
            place[idx] = (torch.randperm(len(idx)) + 0.5)/len(idx)
        return place.argsort()
class SameEveryEpoch(StratifiedBatches):
    def order(self, epoch): return super().order(0)
class ShufflesInside(StratifiedBatches):
    def order(self, epoch):
        g = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return torch.cat([b[torch.randperm(len(b), generator=g)] for b in super().order(0).split(self.bs)])
class NoSeed(StratifiedBatches):
    def __init__(self, targ, bs, seed=0): super().__init__(targ, bs, 0)
class LeavesOut(StratifiedBatches):
    def order(self, epoch): return super().order(epoch)[:-3]


def grouped_folds(groups, k, seed=0):
    ids = groups.unique()
    parts = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))].tensor_split(k)
    masks = [torch.isin(groups, part) for part in parts]
    return [((~m).nonzero()[:, 0], m.nonzero()[:, 0]) for m in masks]

def k_folds(groups, k, seed=0):
    parts = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tensor_split(k)
    return [(torch.cat(parts[:i] + parts[i+1:]), parts[i]) for i in range(k)]
def masks(groups, k, seed=0):
    return [(torch.isin(torch.arange(len(groups)), t), torch.isin(torch.arange(len(groups)), v))
            for t, v in grouped_folds(groups, k, seed)]
def global_order(groups, k, seed=0):
    ids = groups.unique()
    masks = [torch.isin(groups, part) for part in ids[torch.randperm(len(ids))].tensor_split(k)]
    return [((~m).nonzero()[:, 0], m.nonzero()[:, 0]) for m in masks]
def seeds_the_global(groups, k, seed=0):
    torch.manual_seed(seed)
    return global_order(groups, k)
def never_shuffles(groups, k, seed=0):
    return [((~m).nonzero()[:, 0], m.nonzero()[:, 0])
            for m in (torch.isin(groups, part) for part in groups.unique().tensor_split(k))]
def turned(groups, k, seed=0): return [(v, t) for t, v in grouped_folds(groups, k, seed)]
def one_fold(groups, k, seed=0): return grouped_folds(groups, k, seed)[0]
def by_remainder(groups, k, seed=0):
    masks = [groups % k == i for i in range(k)]
    return [((~m).nonzero()[:, 0], m.nonzero()[:, 0]) for m in masks]


right = {'04.1': log_sigmoid, '04.2': collate_padded, '04.3': SGDMomentum, '04.4': StratifiedBatches,
         '04.5': grouped_folds}
wrong = {
    '04.1': {'large numbers: infinite at 1 of 4 places at [0]': (as_the_words_say, overflows),
             'their gradients: the gradient: NaN': bad_gradient,
             '0 itself: the gradient: the values differ': one_at_zero,
             'ordinary numbers: the gradient is missing': cut_off, 'ordinary numbers: the values differ': minus,
             'three axes: shape (6,) instead of (2, 1, 3)': flat},
    '04.2': {'three items: the ids: the values differ': pads_left,
             'padded with 9: the ids: the values differ': always_zero, 'shape (3, 2) instead of (3, 5)': cuts,
             'dtype float32 instead of int64': in_floats,
             'the labels: gives a list of 3 instead of a tensor': lists, 'it should give a pair': only_ids,
             'int32 stays int32: dtype int64': always_int64, 'shape (5, 3) instead of (3, 5)': columns,
             'shape (3, 10) instead of (3, 5)': fixed_width},
    '04.3': {'momentum 0.9: a weight after step 2': NoMomentum, 'momentum 0.9: a weight after step 1': Dampened,
             'momentum 0.9: a step changes nothing': OldSum, 'no momentum: a step changes nothing': NeverSteps,
             'no momentum: gradients are left': KeepsGradients,
             'they may come as a generator': (KeepsGenerator, StepsUseItUp),
             '`step` raises TypeError': NeedsGradients, '`step` raises RuntimeError': Recorded,
             'side by side: the values differ': OneSumForAll,
             '`zero_grad` is not written yet': HalfWritten},
    '04.4': {'more than 2 away from the share': (PlainBatches, ByClass),
             'two samplers with one seed give different batches': FromTheGlobal,
             'the order of the first': SameEveryEpoch,
             'the same items in each batch': ShufflesInside, 'the seed makes no difference': NoSeed,
             'batches of [20, 20, 20, 20, 17]': LeavesOut},
    '04.5': {'is on both sides of a fold': k_folds, 'indices should be int64': masks,
             'one seed gives different folds': global_order, 'draws from the global generator': seeds_the_global,
             'the seed makes no difference': never_shuffles, 'in exactly one validation part': turned,
             'it should give 3 pairs': one_fold, 'should differ by one at most': by_remainder},
}
