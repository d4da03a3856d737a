"Mixed samples and smoothed labels: what the chapter's page cannot show (chapter 09a)."
import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from minidl.learner import (Callback, CancelBatch, CancelFit, Checkpoint, GradientAccumulation, Learner, TerminateOnNaN,
                            accuracy, map_tensors)
from minidl.mixup import (CutMix, LabelSmoothingCrossEntropy, Mixing, MixUp, NoneReduce, box_mask, calibration_error,
                          cut_boxes, mixed_loss, reduce_loss, reliability)
from minidl.schedule import fit_one_cycle   # noqa: F401  (gives the Learner its method)
from minidl.training import DataLoaders, get_dls

BOTH = pytest.mark.parametrize('kind', [MixUp, CutMix])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')


def images(n=40, seed=0, shape=(1, 8, 8)):
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, *shape, generator=g), torch.randint(0, 3, (n,), generator=g))

def net(n_in=64, n_out=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, 16), nn.ReLU(), nn.Linear(16, n_out))

def make(*cbs, loss_func=F.cross_entropy, model=None, dls=None, device='cpu', **kw):
    dls = dls or get_dls(images(), images(20, 1), bs=16, valid_bs=10)     # batches of 16, 16, 8; 10, 10
    return Learner(model or net(), dls, loss_func, torch.optim.SGD, lr=0.1, cbs=cbs, progress=False, device=device,
                   **kw)

def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def assert_equal(a, b): assert len(a) == len(b) and all(torch.equal(s, t) for s, t in zip(a, b))
def n_hooks(model): return sum(len(m._forward_hooks) for m in model.modules())

class At(Callback):
    "Does something at an event."
    def __init__(self, event, f, order=50):
        self.order = order
        setattr(self, event, f)

def throw(e):
    def f(learn): raise e
    return f

class Watch(Callback):
    "Keeps each training batch: before mixing, as the model gets it, what was drawn, and the loss."
    order = 50
    def __init__(self): self.seen = []
    def after_loss(self, learn):
        if not learn.training: return
        mixer, copied = learn.cb(Mixing), lambda b: map_tensors(torch.clone, b)
        self.seen.append(dict(xb=copied(learn.xb), yb=copied(learn.yb), pred=learn.pred.detach(),
                              loss=learn.loss.detach(),
                              perm=mixer.perm.clone(), share=mixer.share.clone(), epoch=learn.epoch))


# ---- NoneReduce

def my_loss(pred, targ, reduction='mean'): return F.cross_entropy(pred, targ, reduction=reduction)
def passes_on(pred, targ, **kwargs): return F.cross_entropy(pred, targ, **kwargs)

class WithForward(nn.Module):
    def forward(self, pred, targ, reduction='mean'): return F.cross_entropy(pred, targ, reduction=reduction)

class WithCall:
    def __call__(self, pred, targ, reduction='mean'): return F.cross_entropy(pred, targ, reduction=reduction)

class WithAttribute:
    reduction = 'mean'   # of the class, not of the object
    def __call__(self, pred, targ): return F.cross_entropy(pred, targ, reduction=self.reduction)

LOSSES = dict(function=F.cross_entropy, module=nn.CrossEntropyLoss(), own=my_loss, kwargs=passes_on,
              partial=partial(my_loss),
              twice=partial(partial(F.cross_entropy, label_smoothing=0.), reduction='sum'),
              sum=nn.CrossEntropyLoss(reduction='sum'),
              smoothing=LabelSmoothingCrossEntropy(0.), forward=WithForward(), call=WithCall(),
              attribute=WithAttribute(),
              method=WithForward().forward, partial_module=partial(nn.CrossEntropyLoss()))

@pytest.mark.parametrize('loss_func', LOSSES.values(), ids=LOSSES)
def test_every_kind_of_loss_gives_one_number_a_sample_and_is_itself_afterwards(loss_func):
    pred, targ = torch.randn(6, 3), torch.randint(0, 3, (6,))
    before = loss_func(pred, targ)
    with NoneReduce(loss_func) as f:
        torch.testing.assert_close(f(pred, targ), F.cross_entropy(pred, targ, reduction='none'))
    assert torch.equal(loss_func(pred, targ), before)
    with pytest.raises(KeyboardInterrupt), NoneReduce(loss_func): raise KeyboardInterrupt
    assert torch.equal(loss_func(pred, targ), before)

def test_blocks_within_blocks_restore_in_turn():
    loss_func = nn.CrossEntropyLoss(reduction='sum')
    once = NoneReduce(loss_func)
    with once, once, NoneReduce(loss_func): assert loss_func.reduction == 'none'
    assert loss_func.reduction == 'sum'

@pytest.mark.parametrize('loss_func',
                         [lambda p, t: (p - t).mean(), torch.dist, max, nn.Sequential(), partial(lambda p, t: p)])
def test_a_loss_without_reduction_is_refused_with_what_to_do(loss_func):
    with pytest.raises(TypeError, match="reduction, so it cannot.*Write it as"): NoneReduce(loss_func)

def test_a_reduction_that_is_none_of_them_is_an_error():
    with pytest.raises(ValueError, match="not 'avg'"): reduce_loss(torch.ones(3), 'avg')
    assert reduce_loss(torch.ones(3, 4), 'batchmean') == 4 and reduce_loss(torch.ones(3), 'none').shape == (3,)


# ---- the mixed loss

def some(bs=12, k=5, seed=0, rest=()):
    g = torch.Generator().manual_seed(seed)
    pred, targ = torch.randn(bs, k, *rest, generator=g).double(), torch.randint(0, k, (bs, *rest), generator=g)
    return pred, targ, torch.randperm(bs, generator=g), torch.rand(bs, generator=g).double()

@pytest.mark.parametrize('eps', [0., 0.1, 0.4])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('rest', [(), (7,), (3, 4)])
def test_it_is_cross_entropy_against_mixed_smoothed_targets_with_its_gradients(eps, reduction, rest):
    pred, targ, perm, share = some(rest=rest)
    smooth = (1-eps)*F.one_hot(targ, 5) + eps/5                                             # (bs, ..., k)
    s = share.view(-1, *[1]*(smooth.ndim-1))
    targets = (s*smooth + (1-s)*smooth[perm]).movedim(-1, 1)                                # (bs, k, ...)
    by_hand = lambda p: reduce_loss(-(targets * p.log_softmax(1)).sum(1), reduction)
    for loss_func in (LabelSmoothingCrossEntropy(eps, reduction),
                      partial(F.cross_entropy, label_smoothing=eps, reduction=reduction)):
        a, b = pred.clone().requires_grad_(), pred.clone().requires_grad_()
        ours, theirs = mixed_loss(loss_func, a, targ, perm, share), by_hand(b)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(torch.autograd.grad(ours, a), torch.autograd.grad(theirs, b), rtol=1e-6, atol=1e-8)

def test_in_float32_it_equals_the_mixed_smoothed_targets_to_1e_6():
    pred, targ, perm, share = some(64, 10)
    pred, share = pred.float(), share.float()
    smooth = 0.9*F.one_hot(targ, 10) + 0.01
    targets = share[:, None]*smooth + (1-share[:, None])*smooth[perm]
    ours = mixed_loss(LabelSmoothingCrossEntropy(0.1), pred, targ, perm, share)
    assert abs(ours - F.cross_entropy(pred, targets)) < 1e-6

WEIGHTED = [nn.CrossEntropyLoss(torch.rand(5).double() + 0.1), nn.CrossEntropyLoss(ignore_index=2),
            nn.NLLLoss(ignore_index=1),
            partial(F.cross_entropy, weight=torch.rand(5).double() + 0.1, ignore_index=3, label_smoothing=0.2)]

@pytest.mark.parametrize('loss_func', WEIGHTED)
@pytest.mark.parametrize('rest', [(), (7,)])
def test_with_nothing_mixed_weighted_losses_are_themselves(loss_func, rest):
    pred, targ, perm, share = some(rest=rest)
    torch.testing.assert_close(mixed_loss(loss_func, pred, targ, perm, torch.ones_like(share)), loss_func(pred, targ))
    torch.testing.assert_close(mixed_loss(loss_func, pred, targ, perm, torch.zeros_like(share)),
                               loss_func(pred, targ[perm]))

def test_class_weights_and_ignored_targets_enter_the_divisor_by_their_shares():
    pred, targ, perm, share = some()
    weight = torch.tensor([0.5, 1., 2., 3., 0.1]).double()
    w = weight[targ] * (targ != 4)
    each = -pred.log_softmax(1).gather(1, targ[:, None])[:, 0] * w
    swapped = -pred.log_softmax(1).gather(1, targ[perm][:, None])[:, 0] * w[perm]
    expected = (share*each + (1-share)*swapped).sum() / (share*w + (1-share)*w[perm]).sum()
    torch.testing.assert_close(mixed_loss(nn.CrossEntropyLoss(weight, ignore_index=4), pred, targ, perm, share),
                               expected)

def test_where_every_target_is_ignored_the_mean_is_nan_as_in_torch():
    pred, targ, perm, share = some()
    assert mixed_loss(F.cross_entropy, pred, torch.full_like(targ, -100), perm, share).isnan()

VALUES = [F.mse_loss, nn.MSELoss(), nn.L1Loss(reduction='sum'), F.smooth_l1_loss, nn.KLDivLoss(reduction='batchmean'),
          nn.BCEWithLogitsLoss(pos_weight=torch.rand(5).double())]

@pytest.mark.parametrize('loss_func', VALUES)
def test_losses_of_float_targets_mix_and_are_themselves_with_nothing_mixed(loss_func):
    pred, _, perm, share = some()
    targ = torch.rand(12, 5).double()
    torch.testing.assert_close(mixed_loss(loss_func, pred, targ, perm, torch.ones_like(share)), loss_func(pred, targ))
    half = mixed_loss(loss_func, pred, targ, perm, torch.full_like(share, 0.5))
    torch.testing.assert_close(half, (loss_func(pred, targ) + loss_func(pred, targ[perm]))/2)

def test_for_squared_errors_it_has_the_gradient_of_the_mixed_values():
    pred, _, perm, share = some()
    targ = torch.rand(12, 5).double()
    mixed = share[:, None]*targ + (1-share[:, None])*targ[perm]
    a, b = pred.clone().requires_grad_(), pred.clone().requires_grad_()
    grads = (torch.autograd.grad(mixed_loss(F.mse_loss, a, targ, perm, share), a),
             torch.autograd.grad(F.mse_loss(b, mixed), b))
    torch.testing.assert_close(*grads)

def test_a_loss_that_flattens_a_sequence_is_put_back_into_shape():
    pred, targ, perm, share = some(rest=(7,))
    def flat(pred, targ, reduction='mean'):
        return F.cross_entropy(pred.movedim(1, -1).flatten(0, 1), targ.flatten(), reduction=reduction)
    torch.testing.assert_close(mixed_loss(flat, pred, targ, perm, share),
                               mixed_loss(F.cross_entropy, pred, targ, perm, share))

def test_of_a_loss_that_returns_more_the_first_is_mixed():
    pred, targ, perm, share = some()
    def two(pred, targ, reduction='mean'): return F.cross_entropy(pred, targ, reduction=reduction), pred.mean()
    torch.testing.assert_close(mixed_loss(two, pred, targ, perm, share),
                               mixed_loss(F.cross_entropy, pred, targ, perm, share))

def test_a_loss_that_takes_no_notice_of_its_reduction_is_an_error():
    pred, targ, perm, share = some()
    def stubborn(pred, targ, reduction='mean'): return F.cross_entropy(pred, targ)
    with pytest.raises(ValueError, match="at least one number for each"): mixed_loss(stubborn, pred, targ, perm, share)

def test_targets_may_be_several_tensors():
    pred, targ, perm, share = some()
    def of_pair(pred, targ, reduction='mean'): return F.cross_entropy(pred, targ['a'], reduction=reduction)
    torch.testing.assert_close(mixed_loss(of_pair, pred, {'a': targ, 'b': targ}, perm, share),
                               mixed_loss(F.cross_entropy, pred, targ, perm, share))


# ---- the callbacks

def test_mixup_makes_weighted_means_and_the_mixed_loss_on_every_batch_even_the_odd_one():
    watch, plain = Watch(), []
    learn = make(MixUp(), watch, At('before_batch', lambda l: l.training and plain.append(l.xb.clone()), order=0))
    learn.fit(1)
    assert [len(s['xb']) for s in watch.seen] == [16, 16, 8]
    for s, x in zip(watch.seen, plain):
        share = s['share'].view(-1, 1, 1, 1)
        torch.testing.assert_close(s['xb'], share*x + (1-share)*x[s['perm']])
        assert (s['share'] >= 0.5).all() and (s['share'] <= 1).all() and len(s['share'].unique()) > 1
        targets = s['share'][:, None]*F.one_hot(s['yb'], 3) + (1-s['share'][:, None])*F.one_hot(s['yb'][s['perm']], 3)
        torch.testing.assert_close(s['loss'], F.cross_entropy(s['pred'], targets))

def test_cutmix_pastes_one_box_an_image_and_the_share_is_its_true_area():
    watch, plain = Watch(), []
    make(CutMix(), watch, At('before_batch', lambda l: l.training and plain.append(l.xb.clone()), order=0)).fit(3)
    for s, x in zip(watch.seen, plain):
        pasted = (s['xb'] != x)[:, 0]                                                       # (bs, 8, 8)
        other = s['perm'] != torch.arange(len(x))
        torch.testing.assert_close(pasted[other].float().mean((1, 2)), 1 - s['share'][other])
        assert torch.equal(s['xb'], torch.where(pasted[:, None], x[s['perm']], x))
        for p in pasted: assert torch.equal(p, p.any(1)[:, None] & p.any(0))                # a rectangle

@BOTH
def test_validation_and_predictions_are_not_mixed(kind):
    learn, seen = make(kind()), []
    learn.add_cb(At('before_batch', lambda l: l.training or seen.append(l.xb.clone())))
    learn.fit(1)
    valid = learn.dls.valid.dataset.tensors
    assert torch.equal(torch.cat(seen), valid[0])
    pred, targ = learn.get_preds()
    assert learn.recorder.values[-1]['valid_loss'] == pytest.approx(F.cross_entropy(pred, targ).item(), abs=1e-6)
    assert learn.validate()['loss'] == pytest.approx(F.cross_entropy(pred, targ).item(), abs=1e-6)

@BOTH
@pytest.mark.parametrize('event',
                         ['before_batch', 'after_pred', 'after_loss', 'before_backward', 'before_step', 'after_batch',
                                   'before_validate'])
@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt, CancelBatch, CancelFit])
def test_the_loss_is_back_whatever_ends_the_batch(kind, event, error):
    loss_func = nn.CrossEntropyLoss()
    learn = make(kind(), loss_func=loss_func)
    try: learn.fit(1, cbs=At(event, throw(error('stop'))))
    except (RuntimeError, KeyboardInterrupt, CancelBatch): pass
    assert learn.loss_func is loss_func and loss_func.reduction == 'mean'
    learn.fit(1)
    assert math.isfinite(learn.recorder.values[-1]['train_loss'])

@BOTH
def test_the_loss_is_back_after_it_raised_itself(kind):
    calls = []
    class Raises(nn.CrossEntropyLoss):
        def forward(self, pred, targ):
            calls.append(1)
            if len(calls) == 4: raise FloatingPointError('on purpose')
            return super().forward(pred, targ)
    loss_func = Raises()
    learn = make(kind(), loss_func=loss_func)
    with pytest.raises(FloatingPointError): learn.fit(1)
    assert learn.loss_func is loss_func and loss_func.reduction == 'mean'

@BOTH
def test_a_callback_may_validate_in_the_middle_of_a_mixed_batch(kind):
    found = []
    def look(learn):
        if learn.training: found.append((learn.validate()['loss'], F.cross_entropy(*learn.get_preds()).item()))
    watch = Watch()
    make(kind(), watch, At('after_pred', look, order=30)).fit(1)
    assert len(found) == 3
    for a, b in found: assert a == pytest.approx(b, abs=1e-6)
    for s in watch.seen: assert (s['share'] < 1).any()
    again = Watch()
    make(kind(), again).fit(1)
    assert [s['loss'] for s in again.seen] == [s['loss'] for s in watch.seen]

def test_a_validation_in_the_middle_counts_targets_as_the_loss_does():
    gen = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 4, 10, generator=gen), torch.randint(0, 3, (32, 10), generator=gen)
    y[:, :5] = y[:9] = -100
    y[:9, 0] = 1     # batches of different numbers of targets
    class Counts(Callback):
        order = 45
        def after_loss(self, learn): (trained if learn.training else validated).append(learn.n)
    ds, found = TensorDataset(x, y), []
    for validate in False, True:
        trained, validated = [], []
        look = At('after_pred', lambda learn: learn.training and validate and learn.validate(), order=30)
        make(MixUp(), Counts(), look, model=nn.Conv1d(4, 3, 1), dls=get_dls(ds, ds, bs=8, valid_bs=8)).fit(1)
        found.append(trained)
        assert validated == [(o != -100).sum().item() for o in y.split(8)] * (5 if validate else 1)
    assert found[0] == found[1] and len(trained) == 4

@BOTH
def test_a_batch_of_one_is_its_own_partner_and_stays_as_it_is(kind):
    watch = Watch()
    make(kind(), watch, dls=get_dls(images(3), None, bs=1)).fit(1)
    x, y = images(3).tensors
    assert sorted(s['xb'].sum().item() for s in watch.seen) == pytest.approx(sorted(x.sum((1, 2, 3)).tolist()),
                                                                             abs=1e-6)
    for s in watch.seen: torch.testing.assert_close(s['loss'], F.cross_entropy(s['pred'], s['yb']))

@pytest.mark.parametrize('shape', [(), (5,), (4, 6), (3, 8, 8), (2, 4, 4, 4)])
def test_mixup_takes_any_rank(shape):
    n_in = math.prod(shape)
    model = nn.Sequential(nn.Unflatten(0, (-1, 1)), *net(n_in)) if not shape else net(n_in)
    watch = Watch()
    make(MixUp(), watch, model=model, dls=get_dls(images(shape=shape), None, bs=16)).fit(1)
    assert watch.seen[0]['xb'].shape == (16, *shape)

@pytest.mark.parametrize('shape', [(9,), (4, 6), (3, 8, 10), (2, 4, 4, 4)])
def test_cutmix_cuts_intervals_rectangles_and_cuboids(shape):
    watch, (x, y) = Watch(), images(shape=shape).tensors
    make(CutMix(), watch, model=net(math.prod(shape)), dls=DataLoaders([(x, y)])).fit(1)
    s, = watch.seen
    other = s['perm'] != torch.arange(40)
    kept = (s['xb'] == x).flatten(1).float().mean(1)
    torch.testing.assert_close(kept[other], s['share'][other])
    assert (s['share'] < 1).any()
    own_and_partner = torch.stack([x, x[s['perm']]])
    assert (s['xb'] == own_and_partner).any(0).all()      # every number is one of the two

def test_cutmix_without_a_dimension_to_cut_through_says_so():
    model = nn.Sequential(nn.Unflatten(0, (-1, 1)), *net(1))
    with pytest.raises(ValueError, match='cuts through the dimensions after batch'):
        make(CutMix(), model=model, dls=get_dls(images(shape=()), None, bs=16)).fit(1)

class TwoInputs(nn.Module):
    def __init__(self, n_in=128):
        super().__init__()
        self.body = net(n_in)
    def forward(self, a, b): return self.body(torch.cat([a.flatten(1), b.flatten(1)], 1))

@BOTH
def test_all_inputs_of_a_tuple_or_dict_get_the_same_mixture(kind):
    x, y = images().tensors
    for batches in ([(x, x.clone(), y)], [({'a': x, 'b': x.clone()}, y)]):
        watch = Watch()
        make(kind(), watch, model=TwoInputs(), dls=DataLoaders(batches)).fit(1)
        xb = watch.seen[0]['xb']
        a, b = xb.values() if isinstance(xb, dict) else xb
        assert torch.equal(a, b) and not torch.equal(a, x)

def test_inputs_that_cannot_be_mixed_are_refused_with_what_to_do():
    x, y = images().tensors
    with pytest.raises(TypeError, match='int64.*layer=model.emb'):
        make(MixUp(), model=TwoInputs(), dls=DataLoaders([(x, torch.ones(40, 64).long(), y)])).fit(1)
    with pytest.raises(TypeError, match='batch of 40'):
        make(MixUp(), model=TwoInputs(), dls=DataLoaders([(x, torch.ones(64), y)])).fit(1)
    with pytest.raises(ValueError, match='alike in all'):
        make(CutMix(), model=TwoInputs(), dls=DataLoaders([(x, torch.ones(40, 1, 4, 16), y)])).fit(1)
    for kind in MixUp, CutMix:
        with pytest.raises(ValueError, match='mixes targets'):
            make(kind(), loss_func=lambda pred: pred.mean(), dls=DataLoaders([(x,)])).fit(1)

@BOTH
@pytest.mark.parametrize('alpha', [0, 0., -1., math.nan, math.inf, None, '0.4', True])
def test_an_alpha_that_is_no_positive_number_is_refused(kind, alpha):
    with pytest.raises(ValueError, match='above 0 as alpha'): kind(alpha)

@BOTH
@pytest.mark.parametrize('alpha', [1, np.float32(0.3), 1e-6, 1e6])
def test_extreme_alphas_give_shares_within_bounds(kind, alpha):
    watch = Watch()
    make(kind(alpha), watch).fit(1)
    for s in watch.seen: assert ((s['share'] >= 0) & (s['share'] <= 1)).all() and s['loss'].isfinite()

def test_two_mixers_at_once_are_refused_and_nothing_is_left_changed():
    learn = make(MixUp(), CutMix())
    with pytest.raises(ValueError, match='would mix the same batch'): learn.fit(1)
    assert learn.loss_func is F.cross_entropy
    with pytest.raises(ValueError, match='There is a MixUp already'): make(MixUp(), MixUp())

def test_a_loss_without_reduction_ends_the_fit_with_a_sentence_and_nothing_changed():
    def loss_func(pred, targ): return F.cross_entropy(pred, targ)
    learn = make(MixUp(), loss_func=loss_func)
    before = weights(learn)
    with pytest.raises(TypeError, match='neither an attribute nor a parameter'): learn.fit(1)
    assert learn.loss_func is loss_func
    assert_equal(weights(learn), before)

def test_a_nan_in_one_image_reaches_the_check_for_nans():
    x, y = images().tensors
    x = x.clone()
    x[3] = math.nan
    with pytest.warns(UserWarning, match='not finite'):
        make(MixUp(), TerminateOnNaN(every=1), dls=DataLoaders([(x, y)])).fit(1)

def test_regression_trains_and_its_train_loss_is_the_mixed_one():
    x = images().tensors[0]
    y, watch = x.flatten(1)[:, :2].clone(), Watch()
    learn = make(MixUp(), watch, loss_func=nn.MSELoss(), model=net(64, 2),
                 dls=get_dls(TensorDataset(x, y), None, bs=16))
    learn.fit(30)
    for s in watch.seen[:3]:
        each = [(s['pred'] - t).square().mean(1) for t in (s['yb'], s['yb'][s['perm']])]
        torch.testing.assert_close(s['loss'], (s['share']*each[0] + (1-s['share'])*each[1]).mean())
    losses = [v['train_loss'] for v in learn.recorder.values]
    assert losses[-1] < 0.6*losses[0]

@BOTH
def test_draws_come_from_seed_epoch_and_batch_alone_and_leave_the_generators_alone(kind):
    def draws(seed, before=0):
        watch, learn = Watch(), make(kind(seed=seed))
        torch.manual_seed(before); np.random.seed(before)
        states = torch.get_rng_state(), np.random.get_state()[1].copy()
        learn.fit(2, cbs=watch)
        assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
        return [s['share'] for s in watch.seen]
    a = draws(0)
    assert_equal(a, draws(0, before=5))
    assert not torch.equal(a[0], draws(1)[0]) and not torch.equal(a[0], a[1]) and not torch.equal(a[0], a[3])

@BOTH
def test_a_second_fit_of_a_learner_mixes_anew(kind):
    once, again, learn = Watch(), Watch(), make(kind())
    learn.fit(1, cbs=once)
    learn.fit(1, cbs=again)
    assert not torch.equal(once.seen[0]['share'], again.seen[0]['share'])

@BOTH
@pytest.mark.parametrize('at', [(0, 1), (1, 0), (1, 2)])
def test_a_resumed_fit_ends_with_the_same_weights(kind, at, tmp_path):
    def crash(learn):
        if learn.training and (learn.epoch, learn.iter) == at: raise RuntimeError('power')
    whole = make(kind()).fit(3)
    with pytest.raises(RuntimeError):
        make(kind()).fit(3, cbs=[Checkpoint(tmp_path, every=1), At('before_batch', crash)])
    resumed = make(kind()).fit(cbs=Checkpoint(tmp_path, every=1), resume=tmp_path)
    assert_equal(weights(whole), weights(resumed))

@BOTH
def test_accumulation_steps_on_the_mean_gradient_of_its_mixed_batches(kind):
    watch, grads = Watch(), []
    dls = lambda: get_dls(images(40), None, bs=16)
    def keep(learn): grads.append([p.grad.clone() for p in learn.model.parameters()])
    learn = make(kind(), watch, GradientAccumulation(3), At('before_step', keep, order=30), dls=dls())
    start = copy.deepcopy(learn.model)
    learn.fit(1)
    losses = [mixed_loss(F.cross_entropy, start(s['xb']), s['yb'], s['perm'], s['share']) * len(s['xb'])
              for s in watch.seen]
    by_hand = torch.autograd.grad(sum(losses)/40, start.parameters())
    assert len(grads) == 1
    for g, h in zip(grads[0], by_hand): torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-6)

def test_training_metrics_compare_with_the_larger_share():
    watch = Watch()
    learn = make(MixUp(), watch, metrics=accuracy, train_metrics=True)
    learn.fit(1)
    by_hand = sum(accuracy(s['pred'], s['yb']).item()*len(s['yb']) for s in watch.seen)/40
    assert learn.recorder.values[-1]['train_accuracy'] == pytest.approx(by_hand)

def test_targets_are_checked_as_they_were_and_with_the_losses_own_settings():
    x, y = images().tensors
    learn = make(MixUp(), dls=DataLoaders([(x, y + 5)]))
    with pytest.raises(ValueError, match='targets go from 0 to 2'): learn.fit(1)
    y = y.clone()
    y[::3] = 255
    make(MixUp(), loss_func=nn.CrossEntropyLoss(ignore_index=255), dls=DataLoaders([(x, y)])).fit(1)

def test_smoothing_and_mixup_train_together_with_one_cycle():
    learn = make(MixUp(), loss_func=LabelSmoothingCrossEntropy(), metrics=accuracy)
    learn.fit_one_cycle(3, 0.1)
    assert isinstance(learn.loss_func, LabelSmoothingCrossEntropy) and learn.loss_func.reduction == 'mean'


# ---- mixing at a layer

def test_a_hidden_layer_is_mixed_the_input_is_not_and_no_hook_stays():
    model, heard, plain = net(), {}, []
    model[3].register_forward_pre_hook(lambda m, inp: heard.__setitem__('next',
                                                                        inp[0].detach()) if m.training else None)
    model[2].register_forward_hook(lambda m, inp, out: heard.__setitem__('out', out.detach()) if m.training else None)
    watch = Watch()
    make(MixUp(layer=model[2]), watch, model=model, dls=get_dls(images(16), images(8), bs=16)).fit(1)
    s = watch.seen[0]
    torch.testing.assert_close(heard['next'], torch.lerp(heard['out'][s['perm']], heard['out'], s['share'][:, None]))
    assert n_hooks(model) == 1 and any(torch.equal(s['xb'][0], x) for x in images(16).tensors[0])

def test_of_several_places_each_gets_its_turn_and_resuming_draws_the_same():
    def places():
        model, seen = net(), []
        mixer = MixUp(layer=[None, model[1], model[2]])
        make(mixer, At('after_pred', lambda l: l.training and seen.append(model_index(model, mixer.inside.layer)),
                       order=0),
             model=model).fit(8)
        return seen
    def model_index(model, layer): return None if layer is None else list(model).index(layer)
    first = places()
    assert set(first) == {None, 1, 2} and first == places()

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.emb, self.rnn, self.out = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)
    def forward(self, x): return self.out(self.rnn(self.emb(x))[0].mean(1))

def tokens():
    g = torch.Generator().manual_seed(3)
    return get_dls(TensorDataset(torch.randint(0, 20, (40, 6), generator=g), torch.randint(0, 3, (40,), generator=g)),
                   None, bs=16)

def test_tokens_are_mixed_at_the_embedding():
    model = Tokens()
    learn = make(MixUp(layer=model.emb), model=model, dls=tokens()).fit(2)
    assert math.isfinite(learn.recorder.values[-1]['train_loss']) and n_hooks(model) == 0
    with pytest.raises(TypeError, match='layer=model.emb'): make(MixUp(), model=Tokens(), dls=tokens()).fit(1)

def test_layers_that_cannot_be_mixed_at_are_refused():
    model = Tokens()
    with pytest.raises(ValueError, match='gives a tuple'):
        make(MixUp(layer=model.rnn), model=model, dls=tokens()).fit(1)
    assert n_hooks(model) == 0
    with pytest.raises(ValueError, match='no layer of this model'): make(MixUp(layer=nn.Linear(2, 2))).fit(1)
    with pytest.raises(ValueError, match='empty list'): MixUp(layer=[])

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.lin, self.spare = net(64, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        def forward(self, x): return self.lin(self.lin(self.body(x)))[:, :3]
    model = Twice()
    with pytest.raises(ValueError, match='is called again'): make(MixUp(layer=model.lin), model=model).fit(1)
    model = Twice()
    with pytest.raises(ValueError, match='did not call'): make(MixUp(layer=model.spare), model=model).fit(1)
    assert n_hooks(model) == 0

def test_validation_within_a_batch_does_not_disturb_the_layer():
    def fit(*cbs):
        model, watch = net(), Watch()
        make(MixUp(layer=model[2]), watch, *cbs, model=model).fit(1)
        return [s['loss'] for s in watch.seen]
    look = At('after_pred', lambda l: l.training and l.validate(), order=30)
    assert fit() == fit(look)

@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointed_activations_are_mixed_again_in_the_backward_pass(reentrant):
    class Saving(nn.Module):
        def __init__(self, save):
            super().__init__()
            self.first, self.body, self.save = nn.Linear(64, 64), net(), save
        def forward(self, x):
            x = self.first(x.flatten(1))
            return checkpoint(self.body, x, use_reentrant=reentrant) if self.save and self.training else self.body(x)
    def fit(save):
        torch.manual_seed(4)
        model = Saving(save)
        return weights(make(MixUp(layer=model.body[2]), model=model).fit(2))
    for a, b in zip(fit(True), fit(False)): torch.testing.assert_close(a, b)


# ---- boxes

def test_boxes_are_inside_and_their_shares_are_counted_pixels():
    rng = np.random.default_rng(0)
    for size in (7,), (5, 9), (3, 4, 5), (1, 1):
        area = rng.uniform(0, 1, 500)
        lo, hi, share = cut_boxes(rng, area, size)
        assert (lo >= 0).all() and (hi <= size).all() and (lo <= hi).all()
        mask = box_mask(torch.from_numpy(lo), torch.from_numpy(hi), size)
        assert mask.shape == (500, *size)
        np.testing.assert_allclose(mask.flatten(1).double().mean(1).numpy(), share)

def test_boxes_of_all_and_of_nothing():
    rng = np.random.default_rng(0)
    assert (cut_boxes(rng, np.zeros(50), (8, 8))[2] == 0).all()
    share = cut_boxes(rng, np.ones(2000), (8, 8))[2]
    assert share.max() > 0.95 and share.min() < 0.4      # a box as large as the image sticks out unless it is centered


# ---- label smoothing

@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('eps', [0., 0.1, 0.9])
@pytest.mark.parametrize('rest', [(), (7,), (3, 4)])
@pytest.mark.parametrize('ignore', [False, True])
def test_label_smoothing_equals_torch_in_value_and_gradient(reduction, eps, rest, ignore):
    pred, targ, *_ = some(rest=rest)
    if ignore: targ.view(-1)[::4] = -100
    a, b = pred.clone().requires_grad_(), pred.clone().requires_grad_()
    ours = LabelSmoothingCrossEntropy(eps, reduction)(a, targ)
    theirs = F.cross_entropy(b, targ, label_smoothing=eps, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), a), torch.autograd.grad(theirs.sum(), b))

def test_without_smoothing_a_masked_class_does_no_harm():
    pred, targ, *_ = some()
    pred = torch.cat([pred, pred.new_full((len(pred), 1), -math.inf)], 1).requires_grad_()
    ours, theirs = LabelSmoothingCrossEntropy(0.)(pred, targ), F.cross_entropy(pred, targ)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, pred), torch.autograd.grad(theirs, pred))

def test_classes_may_be_the_last_dimension():
    pred, targ, *_ = some(rest=(7,))
    ours = LabelSmoothingCrossEntropy(axis=-1)(pred.movedim(1, -1), targ)
    torch.testing.assert_close(ours, F.cross_entropy(pred, targ, label_smoothing=0.1))

@pytest.mark.parametrize('dtype', [torch.int32, torch.uint8])
def test_targets_may_be_short_integers(dtype):
    pred, targ, *_ = some()
    torch.testing.assert_close(LabelSmoothingCrossEntropy()(pred, targ.to(dtype)),
                               LabelSmoothingCrossEntropy()(pred, targ))

def test_label_smoothing_refuses_with_sentences():
    pred, targ, *_ = some(rest=(7,))
    with pytest.raises(ValueError, match='axis says'): LabelSmoothingCrossEntropy()(pred.movedim(1, -1), targ)
    with pytest.raises(TypeError, match='class indices'): LabelSmoothingCrossEntropy()(pred, pred)
    with pytest.raises(ValueError, match=r'in \[0, 1\)'): LabelSmoothingCrossEntropy(1.)
    with pytest.raises(ValueError, match=r'in \[0, 1\)'): LabelSmoothingCrossEntropy(math.nan)
    with pytest.raises(ValueError, match="not 'avg'"): LabelSmoothingCrossEntropy(reduction='avg')
    # -1, -2, -3 are no classes
    with pytest.raises((IndexError, RuntimeError)): LabelSmoothingCrossEntropy()(pred, targ - 3)


# ---- calibration

def test_calibration_error_of_simulated_networks():
    g = torch.Generator().manual_seed(0)
    logits = 3*torch.randn(50_000, 4, generator=g)
    targ = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]         # right as often as they say
    assert calibration_error(logits, targ) < 0.01
    assert calibration_error(3*logits, targ) > 0.08 and calibration_error(logits/3, targ) > 0.08
    conf, acc, share = reliability(3*logits, targ)
    assert share.sum() == pytest.approx(1) and (acc[4:] < conf[4:]).all() and conf[0].isnan()

def test_calibration_by_hand():
    conf, acc, share = reliability(torch.tensor([[0., math.log(9)], [0., 0.]]), torch.tensor([1, 1]), n_bins=2)
    assert share.tolist() == [0.5, 0.5]                   # 0.5 is in the lower bin, 0.9 in the upper one
    torch.testing.assert_close(conf, torch.tensor([0.5, 0.9]))
    assert acc[1] == 1


# ---- CUDA

@needs_cuda
@BOTH
def test_on_cuda_nothing_waits_and_it_trains(kind):
    learn = make(kind(), device='cuda', loss_func=LabelSmoothingCrossEntropy())
    learn.fit(1)
    sync = At('before_batch', lambda l: torch.cuda.set_sync_debug_mode('error' if l.training else 'default'), order=1)
    stop = At('after_loss', lambda l: torch.cuda.set_sync_debug_mode('default'), order=6)
    try: learn.fit(1, cbs=[sync, stop])
    finally: torch.cuda.set_sync_debug_mode('default')
    assert math.isfinite(learn.recorder.values[-1]['train_loss'])

@needs_cuda
def test_on_cuda_it_draws_what_it_draws_on_the_cpu():
    def shares(device):
        watch = Watch()
        make(MixUp(), watch, device=device).fit(1)
        return [s['share'].cpu() for s in watch.seen]
    assert_equal(shares('cuda'), shares('cpu'))
