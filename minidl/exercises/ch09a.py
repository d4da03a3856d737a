"Checks of the exercises of chapter 09a."
import math
import random

import torch
import torch.nn.functional as F

from .core import Wrong, exercise, expect, same


@exercise('09a.1', hints=[
    'First smooth each target, as the section "Label smoothing" does, then mix the rows. The order does not matter.',
    'The partner of row i has the row `perm[i]`. A share for each row has to stand in a column.',
    '`F.one_hot` gives integers, `share` is what the floats come from.'])
def mix_targets(f):
    "Smoothed and mixed targets, as probabilities."
    from minidl.mixup import LabelSmoothingCrossEntropy, mixed_loss
    def case(n, k, eps, what):
        targ, perm, share = torch.randint(0, k, (n,)), torch.randperm(n), torch.rand(n)
        hot = (1 - eps)*F.one_hot(targ, k) + eps/k
        want = share[:, None]*hot + (1 - share[:, None])*hot[perm]
        return same(f(targ, perm, share, k, eps) if eps else f(targ, perm, share, k), want, what)
    yield case(6, 4, 0., 'mixed')
    yield case(5, 5, 0., 'as many classes as samples')
    yield case(7, 10, 0.1, 'smoothed too')
    yield case(3, 2, 0.6, 'two classes')
    yield case(1, 3, 0.2, 'a batch of one')
    logits, targ, perm, share = torch.randn(8, 5)*3, torch.randint(0, 5, (8,)), torch.randperm(8), torch.rand(8)
    want = mixed_loss(LabelSmoothingCrossEntropy(0.1), logits, targ, perm, share)
    yield same(F.cross_entropy(logits, f(targ, perm, share, 5, 0.1)), want, 'the loss is `mixed_loss`', tol=1e-5)


@exercise('09a.2', hints=[
    'One number, and a smooth function of it with a single minimum. Any way of minimizing will do, if it gets there.',
    'T must stay above 0 and may be 30 or 0.05: search for its logarithm, or for 1/T, in which the loss is convex.',
    '`torch.optim.LBFGS` with `strong_wolfe`, or twenty Newton steps. Give a float, and leave `pred` as it is.'])
def temperature(f):
    "The temperature that calibrates logits."
    def best(pred, targ):
        logits, lo, hi = pred.double(), math.log(1e-3), math.log(1e3)
        def loss(log_t): return F.cross_entropy(logits/math.exp(log_t), targ).item()
        ratio = (math.sqrt(5) - 1)/2                                  # golden section, in the logarithm of T
        for _ in range(40):
            a, b = hi - ratio*(hi - lo), lo + ratio*(hi - lo)
            if loss(a) < loss(b): hi = b
            else: lo = a
        return math.exp((lo + hi)/2)
    def case(scale, k, n, what):
        logits = 1.5*torch.randn(n, k)
        targ = torch.distributions.Categorical(logits=logits).sample()
        pred = scale*logits
        got, want = f(pred, targ), best(pred, targ)
        if isinstance(got, torch.Tensor) or not isinstance(got, (int, float)): same(got, 1., what)
        if not math.isfinite(got): raise Wrong(f'{what}: T is {got}')
        if abs(got/want - 1) > 0.02:
            word = 'too small' if got < want else 'too large'
            raise Wrong(f'{what}: T = {got:.3g} is {word}; another one has a lower cross-entropy')
        return what
    yield case(1., 5, 600, 'calibrated logits')
    yield case(3., 5, 600, 'three times too sure')
    yield case(0.4, 3, 600, 'not sure enough')
    yield case(30., 10, 600, 'far too sure')
    yield case(0.05, 10, 600, 'logits near 0')
    yield case(3., 2, 80, 'a few samples of two classes')


class Trainer:
    "Small fits that record what a callback under test makes of its batches."
    def __init__(self, shape, n=32, bs=8):
        import numpy as np

        from minidl.learner import Callback, CancelBatch, Learner
        from minidl.training import get_dls
        ds = torch.utils.data.TensorDataset(torch.rand(n, *shape) + 0.5, torch.randint(0, 4, (n,)))
        data = ds.tensors[0].clone()
        def chance(): return random.getstate(), torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())

        class Before(Callback):
            "Keeps each batch as it comes; cancels training batches before `skip`, an (epoch, batch)."
            order = -200
            def __init__(self, skip): self.skip = skip
            def before_batch(self, learn):
                if learn.training and (learn.epoch, learn.iter) < self.skip: raise CancelBatch
                self.xb, self.yb, self.chance = learn.xb.clone(), learn.yb.clone(), chance()

        class After(Callback):
            "Keeps what has become of it."
            order = 200
            def __init__(self, cb, first): self.cb, self.first, self.seen = cb, first, {}
            def before_batch(self, learn):
                if chance() != self.first.chance:
                    raise Wrong('a global generator is drawn from, or seeded anew; draw from one of your own')
            def after_loss(self, learn):
                if not torch.equal(learn.yb, self.first.yb): raise Wrong('`learn.yb` is changed; it should stay')
                drawn = {k: v.clone() for k in ('perm', 'share')
                         if isinstance(v := getattr(self.cb, k, None), torch.Tensor)}
                self.seen[learn.training, learn.epoch, learn.iter] = dict(
                    was=self.first.xb, xb=learn.xb.clone(), yb=learn.yb, pred=learn.pred.detach(),
                    loss=learn.loss.detach(), **drawn)

        def fit(cb, epochs=1, skip=(0, 0)):
            torch.manual_seed(1)
            model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), 4))
            first = Before(skip)
            after = After(cb, first)
            learn = Learner(model, get_dls(ds, ds, bs=bs), F.cross_entropy, torch.optim.SGD, default_cbs=False)
            learn.fit(epochs, lr=0.01, cbs=[first, cb, after])
            if not torch.equal(ds.tensors[0], data): raise Wrong('the data set itself is changed; make a new batch')
            if any(not k[0] and not torch.equal(b['xb'], b['was']) for k, b in after.seen.items()):
                raise Wrong('validation batches are changed; it should act in training only')
            return {k[1:]: b for k, b in after.seen.items() if k[0]}       # {(epoch, batch): what was seen}
        self.fit = fit


def same_draws(fit, make):
    "What `make(seed)` draws depends on seed, epoch and batch alone."
    def alike(a, b): return a.keys() == b.keys() and all(torch.equal(a[k]['xb'], b[k]['xb']) for k in a)
    def drawn(b): return b['share'] if 'share' in b else (b['xb'] != b['was']).any(1)
    two = fit(make(1), 2)
    if torch.equal(drawn(two[0, 0]), drawn(two[0, 1])): raise Wrong('the first two batches have the same draws')
    if torch.equal(drawn(two[0, 0]), drawn(two[1, 0])): raise Wrong('the second epoch has the draws of the first')
    yield 'each batch has draws of its own'
    yield expect(alike(fit(make(1), 2), two), 'two fits are alike', 'two fits with one seed have different batches')
    yield expect(not alike(fit(make(2)), {k: b for k, b in two.items() if k[0] == 0}), 'the seed decides',
                 'another seed gives the same batches')
    late = fit(make(1), 2, skip=(1, 2))
    yield expect(alike(late, {k: b for k, b in two.items() if k >= (1, 2)}), 'a fit that goes on in the middle',
                 'a fit that goes on in the middle of an epoch has other batches from there on than one that was never '
                 'interrupted')


@exercise('09a.4', hints=[
    '`before_batch` is the place, and `learn.training` says what for. `Mixing` makes its generator of three numbers; '
    'which?',
    'The function `cutout` of the chapter does it for a batch, given a NumPy generator. Each image gets a box of its '
    'own.',
    'A generator that lives in the callback remembers what came before, so a fit that is resumed draws other boxes. '
    'Make a new one for each batch, by `mix_seed`.'])
def Cutout(f):
    "Cutout as a callback."
    from minidl.mixup import cut_boxes
    fit = Trainer((3, 16, 24)).fit
    batches = fit(f(area=0.25))
    boxes = []
    for b in batches.values():
        changed = b['xb'] != b['was']
        if not changed.any(): raise Wrong('training batches stay as they are')
        if (b['xb'][changed] != 0).any(): raise Wrong('what is cut out should be 0, and everything else as it was')
        if not torch.equal(changed.all(1), changed.any(1)): raise Wrong('a box should go through all channels')
        boxes.append(changed.any(1))                                       # (bs, h, w)
    boxes = torch.cat(boxes)                                               # (n, h, w)
    rows, cols = boxes.any(2), boxes.any(1)
    if not torch.equal(boxes, rows[:, :, None] & cols[:, None]): raise Wrong('what is cut out is not one box an image')
    yield 'boxes of zeros in training, nothing in validation'
    yield expect(len(boxes[:8].unique(dim=0)) > 4, 'each image has a box of its own', 'images of a batch share a box')
    largest = rows.sum(1).max().item(), cols.sum(1).max().item()
    yield expect(largest == (8, 12), 'a quarter of the area', f'with area=0.25 boxes in 16 by 24 pixels have up to '
                 f'{largest[0]} by {largest[1]}; half of each side is a quarter of the area')
    import numpy as np
    share = boxes.float().mean((1, 2))
    usual = cut_boxes(np.random.default_rng(0), np.full(4000, 0.25), (16, 24))[2]
    yield expect(abs(share.mean() - usual.mean()) < 5*usual.std()/len(share)**0.5, 'boxes stick out and are clipped',
                 f'boxes cover {share.mean():.2f} of the images on average, those of `cut_boxes` {usual.mean():.2f}')
    small = torch.cat([(b['xb'] == 0).any(1) for b in fit(f(area=0.01)).values()])
    yield expect(0 < small.float().mean() < 0.02, 'a smaller area', 'with area=0.01 much more or nothing is cut out')
    yield from same_draws(fit, lambda seed: f(area=0.25, seed=seed))


@exercise('09a.5', hints=[
    '`Mixing` asks its subclasses for `start(learn, rng, n, device)`: set `self.share`, and give `learn.xb` another '
    'batch. The partners are in `self.perm` by then.',
    'Whatever is drawn, the coin too, is drawn from the `rng` that is handed in: it is made of seed, epoch and batch.',
    'The two branches are what `MixUp.start`, for the input, and `CutMix.start` do. Which of them takes the larger of '
    't and 1 - t, and where does the other get its share from?'])
def MixOrCut(f):
    "A callback that mixes or cuts, by chance."
    from minidl.mixup import mixed_loss
    fit = Trainer((3, 12, 10)).fit
    def kind(b):
        "Whether a batch is mixed ('mix') or cut ('cut')."
        if 'perm' not in b or 'share' not in b: raise Wrong('`perm` and `share` should say who is mixed with whom')
        same(b['share'], torch.rand(8), '`share`', tol=1e9)
        was, xb, partner, share = b['was'], b['xb'], b['was'][b['perm']], b['share'].view(-1, 1, 1, 1)
        if xb.shape != was.shape or xb.dtype != was.dtype: same(xb, was, 'a batch')
        same(b['loss'], mixed_loss(F.cross_entropy, b['pred'], b['yb'], b['perm'], b['share']), 'the loss', tol=1e-4)
        own, other = (xb == was).all(1), (xb == partner).all(1)            # (bs, h, w)
        if (own | other).all():
            met = b['perm'] != torch.arange(len(xb))
            if not torch.allclose(own.float().mean((1, 2))[met], b['share'][met], atol=1e-4):
                raise Wrong('a batch is cut, and `share` is not the part of each image that is its own')
            rows, cols = (~own).any(2), (~own).any(1)
            if not torch.equal(~own, rows[:, :, None] & cols[:, None]): raise Wrong('what is pasted in is not a box')
            return 'cut'
        if not torch.allclose(xb, share*was + (1 - share)*partner, atol=1e-4):
            raise Wrong('a batch is neither the mean of two by `share` nor cut from two')
        if share.min() < 0.5: raise Wrong('a batch is mixed, and the larger part is not always the image\'s own')
        return 'mix'
    kinds = {p: [kind(b) for b in fit(f(p=p)).values()] for p in (1., 0.)}
    for p, name in (1., 'mix'), (0., 'cut'):
        yield expect(set(kinds[p]) == {name}, f'p={p:g}', f"with p={p:g} not all batches are "
                     f"{'mixed' if p else 'cut'}")
    mean = torch.stack([b['share'] for b in fit(f(alpha=20., p=1.)).values()]).mean()
    yield expect(mean < 0.65, 'alpha', 'a large alpha should mix nearly half and half')
    both = [kind(b) for b in fit(f(p=0.5), 4).values()]
    yield expect(1 < both.count('mix') < 15, 'p=0.5', f"of 16 batches {both.count('mix')} are mixed, the others cut")
    yield from same_draws(fit, lambda seed: f(p=0.5, seed=seed))
