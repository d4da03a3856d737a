"""Right and wrong answers to the exercises of chapter 09a. `wrong` maps a part of the message to an answer that should
get it."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from minidl.learner import Callback
from minidl.mixup import Mixing, box_mask, cut_boxes
from minidl.training import mix_seed


def mix_targets(targ, perm, share, n_classes, eps=0.):
    hot = (1 - eps)*F.one_hot(targ, n_classes) + eps/n_classes
    return torch.lerp(hot[perm].to(share.dtype), hot.to(share.dtype), share[:, None])

def mixes(targ, perm, share, n_classes, eps=0.):
    hot = (1 - eps)*F.one_hot(targ, n_classes) + eps/n_classes
    return share[:, None]*hot + (1 - share[:, None])*hot[perm]
def other_way(targ, perm, share, n_classes, eps=0.): return mixes(targ, perm, 1 - share, n_classes, eps)
def over_others(targ, perm, share, n_classes, eps=0.):
    return mixes(targ, perm, share, n_classes, eps*n_classes/(n_classes - 1))
def no_column(targ, perm, share, n_classes, eps=0.):
    hot = (1 - eps)*F.one_hot(targ, n_classes) + eps/n_classes
    return share*hot + (1 - share)*hot[perm]
def inverse_perm(targ, perm, share, n_classes, eps=0.): return mixes(targ, perm.argsort(), share, n_classes, eps)
def unsmoothed(targ, perm, share, n_classes, eps=0.): return mixes(targ, perm, share, n_classes)
def only_own(targ, perm, share, n_classes, eps=0.):
    return mixes(targ, perm, share, n_classes)*(1 - eps) + eps*F.one_hot(targ, n_classes)
def in_double(targ, perm, share, n_classes, eps=0.): return mixes(targ, perm, share.double(), n_classes, eps)
def twice_eps(targ, perm, share, n_classes, eps=0.):
    return (1 - eps)*mixes(targ, perm, share, n_classes, eps) + eps/n_classes


def temperature(pred, targ):
    pred, log_t = pred.detach().double(), torch.zeros((), dtype=torch.double, requires_grad=True)
    opt = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn='strong_wolfe')
    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(pred/log_t.exp(), targ)
        loss.backward()
        return loss
    opt.step(closure)
    return log_t.exp().item()

def descends(pred, targ):
    t = torch.ones((), requires_grad=True)
    opt = torch.optim.SGD([t], lr=0.1)
    for _ in range(100): opt.zero_grad(); F.cross_entropy(pred/t, targ).backward(); opt.step()
    return t.item()
def inverse(pred, targ): return 1/temperature(pred, targ)
def one(pred, targ): return 1.
def grid(pred, targ):
    ts = torch.linspace(0.5, 5, 200).tolist()
    return min(ts, key=lambda t: F.cross_entropy(pred/t, targ).item())
def as_tensor(pred, targ): return torch.tensor(temperature(pred, targ))
def coarse(pred, targ):
    ts = torch.logspace(-2, 2, 12).tolist()
    return min(ts, key=lambda t: F.cross_entropy(pred/t, targ).item())
def of_the_scale(pred, targ): return pred.std().item()
def scales_it(pred, targ):
    t = temperature(pred, targ)
    pred /= t
    return t


class Cutout(Callback):
    order = 5
    def __init__(self, area=0.25, seed=0): self.area, self.seed = area, seed
    def rng(self, learn): return np.random.default_rng(mix_seed(self.seed, learn.epoch, learn.iter))
    def boxes(self, rng, n, size): return cut_boxes(rng, np.full(n, self.area), size)
    def before_batch(self, learn):
        if not learn.training: return
        size = learn.xb.shape[2:]
        lo, hi, _ = self.boxes(self.rng(learn), len(learn.xb), size)
        inside = box_mask(torch.from_numpy(lo), torch.from_numpy(hi), size).to(learn.xb.device)      # (bs, h, w)
        learn.xb = learn.xb.masked_fill(inside[:, None], 0)

class CutsAlways(Cutout):
    def before_batch(self, learn):
        was, learn.training = learn.training, True
        super().before_batch(learn)
        learn.training = was
class OneBox(Cutout):
    def boxes(self, rng, n, size): return [np.repeat(a, n, 0) for a in cut_boxes(rng, np.full(1, self.area), size)]
class KeepsItsGenerator(Cutout):
    def __init__(self, area=0.25, seed=0):
        super().__init__(area, seed)
        self.kept = np.random.default_rng(seed)
    def rng(self, learn): return self.kept
class SeedAlone(Cutout):
    def rng(self, learn): return np.random.default_rng(self.seed)
class NoEpoch(Cutout):
    def rng(self, learn): return np.random.default_rng(mix_seed(self.seed, learn.iter))
class NoSeed(Cutout):
    def rng(self, learn): return np.random.default_rng(mix_seed(0, learn.epoch, learn.iter))
class GlobalDraws(Cutout):
    def rng(self, learn):
        np.random.seed(mix_seed(self.seed, learn.epoch, learn.iter) % 2**32)
        return np.random
class SideForArea(Cutout):
    def boxes(self, rng, n, size): return cut_boxes(rng, np.full(n, self.area**2), size)
class Inside(Cutout):
    def boxes(self, rng, n, size):
        side = np.round(np.array(size)*self.area**0.5).astype(int)
        lo = rng.integers(0, np.array(size) - side + 1, (n, 2))
        return lo, lo + side, None
class Noise(Cutout):
    def before_batch(self, learn):
        was = learn.xb
        super().before_batch(learn)
        learn.xb = torch.where(learn.xb == was, was, 0.5)
class KeepsTheBox(Cutout):
    def before_batch(self, learn):
        was = learn.xb
        super().before_batch(learn)
        if learn.training: learn.xb = was - learn.xb
class NothingHappens(Cutout):
    def before_batch(self, learn): xb = learn.xb.clone()


class MixOrCut(Mixing):
    def __init__(self, alpha=1., p=0.5, seed=0):
        super().__init__(alpha, seed)
        self.p = p
    def coin(self, rng): return rng.random() < self.p
    def start(self, learn, rng, n, device):
        (self.mix if self.coin(rng) else self.cut)(learn, rng, rng.beta(self.alpha, self.alpha, n))
    def mix(self, learn, rng, t):
        self.share = torch.from_numpy(np.maximum(t, 1-t)).float().to(learn.xb.device)
        learn.xb = torch.lerp(learn.xb[self.perm], learn.xb, self.share.view(-1, 1, 1, 1))
    def cut(self, learn, rng, t):
        lo, hi, area = cut_boxes(rng, t, learn.xb.shape[2:])
        self.share = torch.from_numpy(1 - area).float().to(learn.xb.device)
        inside = box_mask(torch.from_numpy(lo), torch.from_numpy(hi), learn.xb.shape[2:]).to(learn.xb.device)
        learn.xb = torch.where(inside[:, None], learn.xb[self.perm], learn.xb)

class Swapped(MixOrCut):
    def coin(self, rng): return rng.random() >= self.p
class CoinOfItsOwn(MixOrCut):
    def __init__(self, alpha=1., p=0.5, seed=0):
        super().__init__(alpha, p, seed)
        self.chance = np.random.default_rng(seed)
    def coin(self, rng): return self.chance.random() < self.p
class GlobalCoin(MixOrCut):
    def coin(self, rng): return np.random.random() < self.p
class OneChoice(MixOrCut):
    def coin(self, rng): return np.random.default_rng(self.seed).random() < self.p
class SmallerHalf(MixOrCut):
    def mix(self, learn, rng, t):
        self.share = torch.from_numpy(t).float()
        learn.xb = torch.lerp(learn.xb[self.perm], learn.xb, self.share.view(-1, 1, 1, 1))
class AreaAsDrawn(MixOrCut):
    def cut(self, learn, rng, t):
        super().cut(learn, rng, t)
        self.share = torch.from_numpy(1 - t).float()
class ShareOfThePartner(MixOrCut):
    def mix(self, learn, rng, t):
        super().mix(learn, rng, t)
        self.share = 1 - self.share
class PlainLoss(MixOrCut):
    def after_pred(self, learn): pass
class FixedAlpha(MixOrCut):
    def start(self, learn, rng, n, device): (self.mix if self.coin(rng) else self.cut)(learn, rng, rng.beta(1., 1., n))
class NoShare(MixOrCut):
    def start(self, learn, rng, n, device): pass
    def after_pred(self, learn): pass
class DoubleShare(MixOrCut):
    def mix(self, learn, rng, t):
        super().mix(learn, rng, t)
        self.share = self.share.double()


right = {'09a.1': mix_targets, '09a.2': temperature, '09a.4': Cutout, '09a.5': MixOrCut}
wrong = {
    '09a.1': {'mixed: the values': (other_way, inverse_perm),
              'smoothed too: the values': (over_others, unsmoothed, only_own, twice_eps),
              'raises RuntimeError': no_column,
              'dtype float64 instead of float32': in_double},
    '09a.2': {': T = ': (descends, inverse, one), 'not sure enough: T = ': grid,
              'instead of a float': as_tensor, 'calibrated logits: T = ': (coarse, of_the_scale),
              'changes its argument `pred`': scales_it},
    '09a.4': {'validation batches are changed': CutsAlways, 'share a box': OneBox,
              'goes on in the middle': KeepsItsGenerator, 'first two batches': SeedAlone,
              'second epoch has the draws of the first': NoEpoch, 'another seed gives the same': NoSeed,
              'a global generator': GlobalDraws,
              'up to 4 by 6': SideForArea, 'on average, those of `cut_boxes`': Inside, 'should be 0': Noise,
              'training batches stay as they are': NothingHappens, 'what is cut out is not one box': KeepsTheBox},
    '09a.5': {'with p=1 not all batches are mixed': Swapped, 'goes on in the middle': CoinOfItsOwn,
              'a global generator': GlobalCoin, 'of 16 batches': OneChoice,
              "the larger part is not always the image's own": SmallerHalf, 'a batch is cut, and `share`': AreaAsDrawn,
              'nor cut from two': ShareOfThePartner,
              'the loss: the value': PlainLoss, 'alpha should mix': FixedAlpha, 'should say who is mixed': NoShare,
              '`share`: dtype float64': DoubleShare},
}
